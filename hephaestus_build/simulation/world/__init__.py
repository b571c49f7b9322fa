"""The simulated world: terrain, weather, deformation and the files that follow from them."""
