"""What the machine or the container around this process allows."""
