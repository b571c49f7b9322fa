"""The functions of ``import hephaestus_build as hb`` that do what a command does."""
