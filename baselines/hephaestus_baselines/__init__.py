"""Training and scoring of the baselines on the cubes."""
