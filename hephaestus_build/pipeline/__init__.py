"""The build of one frame's cube, from plan to publication."""
