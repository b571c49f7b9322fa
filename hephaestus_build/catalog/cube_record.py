"""What a catalogue says of one cube, derived from its inventory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, get_args

import numpy as np

from hephaestus_build.core.bounds import Bounds
from hephaestus_build.core.era5_grid import EXPVER_FINAL, EXPVER_PRELIMINARY, parse_center_time
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.registry import published_frames
from hephaestus_build.core.volcanoes import volcanoes_of_frame
from hephaestus_build.cube.granules import EpochGranule, GranuleKey, InterferogramGranule, MaskGranule
from hephaestus_build.cube.inventory import CubeInventory
from hephaestus_build.cube.plain_attributes import split_texts
from hephaestus_build.dataset.samples import region_of
from hephaestus_build.operations.pair_table import GONE, STORED, KnownPairs, make_pair_rows
from hephaestus_build.processing.mask_rasterization import PREVIEW_SEEN, PreviewGeometry, Projection
from hephaestus_build.sources.interferograms import EpochBaselines

_MAX_VOLCANOES = 50  # a frame of the registry has a dozen at most
_ERA5_VERSIONS = {EXPVER_FINAL: "final", EXPVER_PRELIMINARY: "preliminary"}
#: Flags of an annotation that make it no sample.
_UNUSABLE = ("corrupted", "processing_error", "no_info")


@dataclass(frozen=True)
class RecordFile:
    """A record of a cube: its BLAKE3 hash and its size in bytes."""

    blake3: str
    size: int


@dataclass(frozen=True)
class CubeRecord:
    """A published cube as the catalogue describes it.

    Attributes
    ----------
    frame : Frame
        Its frame.
    generation : int
        Number of the generation; 0 for a copy.
    published : datetime
        When it was published, UTC, to the second.
    grid : Grid
        Its grid.
    attributes : mapping
        Attributes of the root group.
    optional_variables : tuple of str
        The optional variables that it has.
    satellites : tuple of str
        Satellites of its acquisitions, as far as they are known.
    size : int
        Bytes of its objects.
    files : dict of str to RecordFile
        ``manifest.json`` and ``provenance.json``.
    pairs : tuple of dict
        A row a stored pair, in order of dates (see :func:`pair_rows_of`).
    """

    frame: Frame
    generation: int
    published: datetime
    grid: Grid
    attributes: Mapping[str, Any]
    optional_variables: tuple[str, ...]
    satellites: tuple[str, ...]
    size: int
    files: Mapping[str, RecordFile]
    pairs: tuple[Mapping[str, Any], ...]

    @property
    def is_simulated(self) -> bool:
        """Whether its data is simulated."""
        return self.frame.is_simulated or bool(self.attributes.get("simulated"))

    @property
    def center_time(self) -> timedelta | None:
        """Time of day of the acquisitions, UTC; None where it is not known."""
        try:
            return parse_center_time(str(self.attributes["center_time"]))
        except (KeyError, ValueError):
            return None

    @property
    def volcanoes(self) -> tuple[str, ...]:
        """Volcanoes of the frame: as the published data set names them, else those that lie in the cube."""
        names = split_texts(self.attributes.get("volcanoes"))
        if not names:
            names = [one.name for one in volcanoes_of_frame(self.frame, Bounds(*self.grid.bounds))]
        return tuple(sanitize_text(name, 100) for name in names[:_MAX_VOLCANOES])

    @property
    def region(self) -> str:
        """Region that splits keep together."""
        west, south, east, north = self.grid.bounds
        return region_of(self.frame, ((west + east) / 2, (south + north) / 2))

    def moment_of(self, day: date) -> datetime:
        """Return the acquisition at a date, UTC; midnight where the time of day is not known."""
        return datetime(day.year, day.month, day.day, tzinfo=UTC) + (self.center_time or timedelta())

    def text(self, name: str, limit: int = 500) -> str:
        """Return an attribute as text on one line; empty where there is none."""
        return sanitize_text(self.attributes.get(name, ""), limit)


def make_cube_record(
    frame: Frame,
    generation: int,
    published: datetime,
    inventory: CubeInventory,
    files: Mapping[str, RecordFile],
    *,
    size: int,
    baselines: EpochBaselines | None = None,
    gone: frozenset[str] = frozenset(),
) -> CubeRecord:
    """Return what the catalogue says of a cube.

    Parameters
    ----------
    frame, generation, published, files, size
        See :class:`CubeRecord`.
    inventory : CubeInventory
        Its inventory.
    baselines : EpochBaselines, optional
        Perpendicular baselines of its acquisitions.
    gone : frozenset of str
        Names of pairs that the archive no longer lists.
    """
    return CubeRecord(
        frame=frame,
        generation=generation,
        published=published.replace(microsecond=0),
        grid=inventory.grid.in_first_turn(),
        attributes=inventory.attributes,
        optional_variables=inventory.optional_variables,
        satellites=tuple(sorted(set(inventory.satellites.values()))),
        size=size,
        files=files,
        pairs=tuple(pair_rows_of(frame, inventory, baselines, gone)),
    )


def pair_rows_of(
    frame: Frame, inventory: CubeInventory, baselines: EpochBaselines | None, gone: frozenset[str]
) -> list[dict[str, Any]]:
    """Return a row for each stored pair: those of ``hephaestus pairs``, with what tells of its quality.

    Further keys: ``alignment``; ``era5_primary`` and ``era5_secondary`` (final, preliminary, published,
    missing); ``satellite_primary`` and ``satellite_secondary``; ``usable``, whether it is a sample of the
    benchmark; ``mask_position`` (seen: a preview tells its projection; assumed; uncertain; empty without a
    mask) and ``mask_error_rows`` (see :func:`worst_row_shift`).
    """
    granules = inventory.granules
    rows = make_pair_rows(KnownPairs(frame, granules, None, gone, {}, baselines, "auto", {}))
    shift = round(worst_row_shift(inventory.grid), 1)
    found = []
    for row in rows:
        if row["status"] not in (STORED, GONE):
            continue
        pair = Pair.parse(row["pair"])
        granule, mask = granules[GranuleKey.of_pair(pair)], granules.get(GranuleKey.of_mask(pair))
        assert isinstance(granule, InterferogramGranule)
        days = dict(zip(("primary", "secondary"), pair.dates, strict=True))
        found.append(
            {
                **row,
                "alignment": granule.alignment,
                "usable": row["annotated"] and all(row[name] == 0 for name in _UNUSABLE),
                **{f"era5_{role}": _era5_version(inventory, day) for role, day in days.items()},
                **{
                    f"satellite_{role}": inventory.satellites.get(f"{day:%Y%m%d}", "")
                    for role, day in days.items()
                },
                **_mask_position(mask if isinstance(mask, MaskGranule) else None, frame, shift),
            }
        )
    return found


def _era5_version(inventory: CubeInventory, day: date) -> str:
    epoch = inventory.granules.get(GranuleKey.of_epoch(day))
    if not isinstance(epoch, EpochGranule) or not epoch.is_complete:
        return "missing"
    version = epoch.era5_expver or "unstated"
    return _ERA5_VERSIONS.get(version, version)


def _mask_position(mask: MaskGranule | None, frame: Frame, shift: float) -> dict[str, Any]:
    """Return how well it is known where the outlines of a mask lie, and by how many rows they may be off."""
    if mask is None or mask.projection is None:
        return {"mask_position": "", "mask_error_rows": math.nan}
    if mask.evidence.startswith(PREVIEW_SEEN):
        return {"mask_position": "seen", "mask_error_rows": 0.0}
    known = published_frames().get(frame.id)
    if known is not None and known.uncertain_geometry:  # not even the scale of its previews is known
        return {"mask_position": "uncertain", "mask_error_rows": math.nan}
    return {"mask_position": "assumed", "mask_error_rows": shift}


def worst_row_shift(grid: Grid) -> float:
    """Return by how many rows an outline is moved at most if its preview is read with the wrong projection.

    Examples
    --------
    >>> worst_row_shift(Grid(100, 100, 0.0, 0.05, 0.001, 0.001)) < 0.01
    True
    """
    heights = np.linspace(0, 1, 65)
    ruler = np.column_stack([np.zeros_like(heights), heights])
    projections: tuple[Projection, ...] = get_args(Projection)
    linear, mercator = (PreviewGeometry(1, 1, name, "").to_grid(ruler, grid)[:, 1] for name in projections)
    return float(np.abs(linear - mercator).max())
