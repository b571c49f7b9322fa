"""The simulated archive: a small physical world, served on loopback as the real archives look."""
