"""Annotation files for tests: valid ones, with arbitrary changes, and archives of them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.sources.annotations.archive import Annotations, load_annotations
from hephaestus_build.sources.annotations.record import Annotation

SQUARE = [10.0, 10.0, 20.0, 10.0, 20.0, 20.0, 10.0, 20.0]


def good_file(unique_id: int = 1, **changes: Any) -> dict[str, Any]:
    """Return the JSON object of a positive annotation without defects, with `changes` applied."""
    return {
        "uniqueID": unique_id,
        "frameID": "124D_05291_081406",
        "primary_date": "20180101",
        "secondary_date": f"2018{2 + unique_id // 28:02d}{1 + unique_id % 28:02d}",
        "corrupted": 0,
        "processing_error": 0,
        "glacier_fringes": 0,
        "orbital_fringes": 0,
        "atmospheric_fringes": 1,
        "low_coherence": 0,
        "no_info": 0,
        "image_artifacts": 0,
        "label": ["Deformation"],
        "activity_type": ["Dyke"],
        "intensity_level": ["High"],
        "phase": "Unrest",
        "confidence": 0.8,
        "segmentation_mask": [SQUARE],
        "is_crowd": 0,
        "caption": "A dyke.",
    } | changes


def quiet_file(unique_id: int = 1, **changes: Any) -> dict[str, Any]:
    """Return the JSON object of an annotation without deformation."""
    nothing: dict[str, Any] = {
        "label": ["Non_Deformation"], "activity_type": [], "intensity_level": [],
        "segmentation_mask": [], "phase": "Rest", "caption": "Nothing.",
    }  # fmt: skip
    return good_file(unique_id, **(nothing | changes))


def tar_of(path: Path, files: Mapping[str, bytes | dict[str, Any] | tarfile.TarInfo]) -> Path:
    """Write a gzipped tar archive; a TarInfo among `files` is written unchanged."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
                continue
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def annotation(
    frame: str = "124D_05291_081406", pair: str = "20180101_20180113", unique_id: int = 1, **fields: Any
) -> Annotation:
    """Return an annotation with the flags of a good interferogram."""
    flags = {
        "corrupted": 0,
        "processing_error": 0,
        "no_info": 0,
        "label": ("Non_Deformation",),
        "phase": "Rest",
    }
    return Annotation(unique_id, Frame(frame), Pair.parse(pair), **(flags | fields))


@cache
def real_annotations(shared_data: Path) -> Annotations:
    """Return the 19,919 real annotations; they are read once per process."""
    return load_annotations(shared_data / "annotations.tar.gz")
