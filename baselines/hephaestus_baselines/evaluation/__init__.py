"""Predictions, metrics and confidence intervals."""
