"""Networks written by hand, in every width and depth, as anyone would write them in torch.

They are the oracle: each class works out its own layer widths from a width multiplier and a
depth, so that a level of a nested network can be compared with the narrower network itself.
Nothing here imports nestedge.
"""
