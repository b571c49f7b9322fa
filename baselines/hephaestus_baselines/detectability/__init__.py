"""How small a deformation a model detects: known sources added to quiet interferograms."""
