"""Readers of published cubes: as xarray datasets, or window by window."""
