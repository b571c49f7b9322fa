"""Frozen encoders as baselines: probes on their features, and memory banks of quiet interferograms."""
