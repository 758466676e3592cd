"""nestedge: deploy nested networks, one set of weights that holds several networks."""
