"""Storage of cubes on disk: staging area, generations, manifests, and the writer."""
