"""Loopback servers that present the simulated world as the real archives look."""
