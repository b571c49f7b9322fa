"""Web pages of frames: one self-contained HTML file each, which opens offline."""
