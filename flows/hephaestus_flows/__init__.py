"""Thin Prefect flows over :mod:`hephaestus_build.pipeline.build`."""
