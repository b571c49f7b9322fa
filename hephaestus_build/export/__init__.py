"""Cubes for readers that cannot read Zarr v3: Zarr v2 and cloud-optimized GeoTIFF."""
