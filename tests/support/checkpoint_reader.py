"""Reader of modified checkpoints with a valid embedded hash; a separate module, so that it starts quickly."""

from __future__ import annotations

from pathlib import Path

from hephaestus_baselines.training.inference import load_trained_model
from hephaestus_build.core.atomic_io import hash_bytes


def read_model(path: Path) -> None:
    """Read a checkpoint after recomputing its embedded hash, as anyone who modifies it can."""
    content = path.read_bytes()
    head = content[: -64 if len(content) > 64 else None]
    path.write_bytes(head + hash_bytes(head).encode())
    load_trained_model(path, "cpu", unsealed=True)
