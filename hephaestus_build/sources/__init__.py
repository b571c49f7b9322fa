"""Sources of data: LiCSAR interferograms, ERA5 fields and the experts' annotations."""
