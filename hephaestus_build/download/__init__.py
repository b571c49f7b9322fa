"""HTTP downloads: one bounded client, a cache with receipts, and partial files that are resumed."""
