"""What the converters make of well-known networks, beside what the frameworks' own tools make."""
