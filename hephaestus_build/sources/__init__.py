"""Data sources: LiCSAR interferograms, ERA5 fields and the experts' annotations."""
