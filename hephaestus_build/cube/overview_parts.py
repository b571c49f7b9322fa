"""The granules that an overview is made of, and its fingerprint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hephaestus_build.core.frames import Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.cube.codecs.image_encoder import split_object_name
from hephaestus_build.cube.fingerprints import fingerprint_grid, fingerprint_inputs, grid_as_dict
from hephaestus_build.cube.granules import (
    EpochGranule,
    Granule,
    GranuleKey,
    InterferogramGranule,
    MaskGranule,
    OverviewGranule,
)

#: The variables of a cube that overviews are made of, by the kind of granule that holds their objects.
PHASE, COHERENCE, MASK, WATER_VAPOUR = (
    "insar_difference",
    "insar_coherence",
    "deformation_mask",
    "era5_total_column_water_vapour",
)


@dataclass(frozen=True)
class OverviewParts:
    """What the overview of a pair is made of.

    Attributes
    ----------
    interferogram : InterferogramGranule
        Phase and coherence of the pair.
    mask : MaskGranule or None
        Its masks, if it is annotated.
    epochs : tuple of EpochGranule
        ERA5 at its two dates, the primary one first; empty where one is owed, or was imported without the
        fields on ERA5's own grid.
    """

    interferogram: InterferogramGranule
    mask: MaskGranule | None = None
    epochs: tuple[EpochGranule, ...] = ()

    @classmethod
    def find(cls, granules: Mapping[str, Granule], pair: Pair, grid: Grid) -> OverviewParts | None:
        """Return the parts of a pair's overview; None if no interferogram of it is stored on `grid`.

        Parameters
        ----------
        granules : mapping of str to Granule
            Granules of a cube by key; those on another grid than `grid` are ignored.
        pair : Pair
            The pair.
        grid : Grid
            The frame's grid.
        """
        inputs = fingerprint_grid(grid)
        stored = granules.get(GranuleKey.of_pair(pair))
        if not isinstance(stored, InterferogramGranule) or not stored.is_complete or stored.inputs != inputs:
            return None
        drawn = granules.get(GranuleKey.of_mask(pair))
        mask = drawn if isinstance(drawn, MaskGranule) and drawn.grid_inputs == inputs else None
        epochs = [
            granule
            for granule in map(granules.get, map(GranuleKey.of_epoch, pair.dates))
            if isinstance(granule, EpochGranule) and granule.is_complete and granule.inputs == inputs
            if WATER_VAPOUR in granule.objects
        ]
        return cls(stored, mask, tuple(epochs) if len(epochs) == 2 else ())

    def fingerprint(self, grid: Grid, factor: int) -> str:
        """Return the fingerprint of an overview: the grid, the factor, and the hashes of what it is made of.

        Parameters
        ----------
        grid : Grid
            The frame's grid.
        factor : int
            Decimation of the overview.
        """
        used = (PHASE, COHERENCE, MASK, WATER_VAPOUR)
        digests = [
            (name, item.digest)
            for part in (self.interferogram, self.mask, *self.epochs)
            if part is not None
            for name, item in sorted(part.objects.items())
            if split_object_name(name)[0] in used
        ]
        return fingerprint_inputs(grid_as_dict(grid), factor, digests)


def find_orphans(granules: Mapping[str, Granule], grid: Grid) -> list[str]:
    """Return the keys of the overviews of pairs that are not stored."""
    return [
        key
        for key, granule in granules.items()
        if isinstance(granule, OverviewGranule) and OverviewParts.find(granules, granule.pair, grid) is None
    ]
