"""TFLite: `converter` writes it on the host, `runtime` runs it by LiteRT anywhere."""
