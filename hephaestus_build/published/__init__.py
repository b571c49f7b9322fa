"""Import of published cubes: what others have built becomes a cube here, and builds go on from it."""
