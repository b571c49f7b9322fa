"""A site of all frames: a map, a page per frame and volcano, what is new, a feed; static files alone."""
