"""Which axes of which tensors of a program live and die together, and the program without some."""
