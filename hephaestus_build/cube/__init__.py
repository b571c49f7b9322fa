"""The cube: its schema, its storage on disk, and its readers and checks."""
