"""Networks that break converters, and what each of them ends in."""
