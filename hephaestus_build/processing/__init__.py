"""Array processing without I/O: alignment, interpolation and mask rasterization."""
