"""What the file system of a folder can do, locks that work on any, and tar files without unpacking."""
