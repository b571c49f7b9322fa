"""Writing and publishing of cubes: staging, generations and manifests."""
