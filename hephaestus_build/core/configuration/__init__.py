"""Values and reference of the settings, which stand in ``core/settings.py``."""
