"""Simulated world: terrain, weather, deformation, and the product files computed from them."""
