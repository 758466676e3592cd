"""What the project's tables are made with."""
