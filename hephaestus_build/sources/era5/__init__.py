"""ERA5 fields from the Climate Data Store (CDS) or from the ARCO-ERA5 Zarr store."""
