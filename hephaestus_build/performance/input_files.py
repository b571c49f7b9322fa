"""What a build of the measured frame reads, as files on this disk: for those that do not ask over HTTP."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from hephaestus_build.core.era5_grid import Era5Area, era5_area_around
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.processing.mask_rasterization import rasterize_annotation, resolve_preview_geometry
from hephaestus_build.sources.annotations.archive import load_annotations
from hephaestus_build.sources.annotations.record import Annotation
from hephaestus_build.sources.interferograms import PreviewSize


@dataclass(frozen=True)
class InputFiles:
    """The rasters, annotations and fields of one frame.

    Attributes
    ----------
    frame : Frame
        Whose they are.
    grid : Grid
        Of all rasters.
    pairs : tuple of Pair
        All interferograms.
    files : pathlib.Path
        Folder of the interferograms' files.
    dem, annotations : pathlib.Path
        A raster, and the experts' archive.
    fields : pathlib.Path
        Folder of ERA5's fields by date.
    """

    frame: Frame
    grid: Grid
    pairs: tuple[Pair, ...]
    files: Path
    dem: Path
    annotations: Path
    fields: Path

    @property
    def dates(self) -> tuple[date, ...]:
        """All acquisitions, sorted."""
        return tuple(sorted({day for pair in self.pairs for day in pair.dates}))

    @property
    def area(self) -> Era5Area:
        """Of the ERA5 fields."""
        return era5_area_around(self.grid)

    def phase(self, pair: Pair) -> Path:
        """Return the path of the phase of `pair`."""
        return self._file(pair, "geo.diff_pha.tif")

    def coherence(self, pair: Pair) -> Path:
        """Return the path of the coherence of `pair`."""
        return self._file(pair, "geo.cc.tif")

    def _file(self, pair: Pair, suffix: str) -> Path:
        return self.files / pair.name / "0" / f"{pair}.{suffix}"

    def era5_fields(self, day: date) -> npt.NDArray[np.float32]:
        """Return the three ERA5 fields of an acquisition, float32, shape (3, latitude, longitude)."""
        values: np.ndarray = np.load(self.fields / f"{day:%Y%m%d}.npy")
        return values

    def annotations_by_pair(self) -> dict[Pair, Annotation]:
        """Return what the experts wrote, by pair."""
        found = load_annotations(self.annotations).for_frame(self.frame)
        return {pair: found[pair] for pair in self.pairs if pair in found}

    def rasterize_masks(self, pair: Pair, annotation: Annotation) -> dict[str, npt.NDArray[Any]]:
        """Return the masks of an annotated pair by variable; none where there are no polygons."""
        if not annotation.polygons:
            return {}
        with Image.open(self._file(pair, "geo.diff.png")) as preview:
            size = PreviewSize(*preview.size, preview.mode)
        return rasterize_annotation(
            annotation, resolve_preview_geometry(self.frame, self.grid, size), self.grid
        ).to_full_grid()

    def to_json(self) -> dict[str, Any]:
        """Return the content as JSON values."""
        return {
            "frame": str(self.frame),
            "grid": asdict(self.grid),
            "pairs": [pair.name for pair in self.pairs],
            **{name: str(getattr(self, name)) for name in ("files", "dem", "annotations", "fields")},
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Return the content that :meth:`to_json` wrote."""
        return cls(
            Frame(value["frame"]),
            Grid(**value["grid"]),
            tuple(Pair.parse(name) for name in value["pairs"]),
            **{name: Path(value[name]) for name in ("files", "dem", "annotations", "fields")},
        )
