"""Simulated archive: a small physical world and loopback servers that present it as the real archives do."""
