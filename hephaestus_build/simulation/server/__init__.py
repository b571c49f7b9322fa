"""Loopback servers that present the simulated world in the form of the real archives."""
