"""Measurements of the data loader."""
