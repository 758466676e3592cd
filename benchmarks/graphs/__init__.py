"""Random networks of every operator, and what is checked of each."""
