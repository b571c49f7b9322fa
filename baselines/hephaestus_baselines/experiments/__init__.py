"""Grids of runs and estimates of their cost."""
