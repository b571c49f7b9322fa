"""What a run is: its channels and its configuration; presets."""
