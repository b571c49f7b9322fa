"""Figures of cubes and of the data set, the report on masks, and text for Markdown and Matplotlib."""

from hephaestus_build.core.machine.home import provide_matplotlib_folder

provide_matplotlib_folder()  # before a module of this room imports matplotlib
