"""The cube of a frame: schema, storage, readers and validation."""
