"""Training data: cubes as samples, windows and batches."""
