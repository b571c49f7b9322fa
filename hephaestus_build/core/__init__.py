"""Value types and helpers used by all other packages; independent of any archive or cube."""
