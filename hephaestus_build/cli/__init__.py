"""The console script ``hephaestus``."""
