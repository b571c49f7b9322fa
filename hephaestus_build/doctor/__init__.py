"""The doctor: what can be wrong around the product, each with a verdict and the next step."""
