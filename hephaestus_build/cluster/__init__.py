"""Builds of many frames on a cluster of dask.distributed, one frame a task."""
