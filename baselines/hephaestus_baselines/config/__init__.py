"""Configuration of runs: channels, recipes and presets."""
