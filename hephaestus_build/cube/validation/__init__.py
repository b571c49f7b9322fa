"""Checks of published cubes: metadata, flags, checksums and the record they were written from."""
