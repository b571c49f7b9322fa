"""Comparison of two cubes: one built here, an export, a published one, in any combination."""
