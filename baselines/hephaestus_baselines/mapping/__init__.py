"""Maps of deformation probability over whole frames."""
