"""HTTP downloads: a client with limits, a cache with receipts, and resumable partial files."""
