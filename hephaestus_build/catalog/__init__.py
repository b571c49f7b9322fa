"""Catalogue of the cubes for others' tools: STAC, a table of the pairs, Croissant and a data card."""
