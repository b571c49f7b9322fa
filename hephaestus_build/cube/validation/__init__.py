"""Validation of published cubes: checksums, schema, flags, and consistency with the record."""
