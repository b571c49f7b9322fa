"""Data sets and Lightning data modules as the training loops of other libraries expect them."""
