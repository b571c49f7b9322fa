"""Value types and helpers that every other room may use; nothing here knows an archive or a cube."""
