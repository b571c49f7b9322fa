"""What the machine or the container around this process allows, and how it is written to."""
