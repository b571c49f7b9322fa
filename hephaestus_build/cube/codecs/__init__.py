"""Encoding and decoding of single chunks and shards."""
