"""What is on disk: the schema of a cube, its writer, its generations and its reader."""
