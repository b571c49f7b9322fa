"""COMET's LiCSAR portal: listings, metadata and GeoTIFF products of a frame."""
