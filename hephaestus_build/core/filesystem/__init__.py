"""What the file system of a folder can do, and locks that work on any of them."""
