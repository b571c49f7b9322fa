"""What is kept beside the generations of a frame: copies and notes that may be deleted."""
