"""Model architectures and loss functions."""
