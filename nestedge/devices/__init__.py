"""Device profiles: what is known about a device, with the source of every figure."""
