"""Reading of published cubes, whole or by windows."""
