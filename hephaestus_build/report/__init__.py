"""Figures of cubes and of the data set, the report on masks, and text for Markdown and Matplotlib."""
