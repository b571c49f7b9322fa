"""Stages of an import besides those of a build: masks and atmosphere as a published cube has them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from hephaestus_build.core.era5_grid import EXPVER_PUBLISHED
from hephaestus_build.core.provenance import PUBLISHED
from hephaestus_build.cube.fingerprints import fingerprint_inputs, grid_as_dict
from hephaestus_build.cube.granules import EpochGranule, GranuleKey, MaskGranule
from hephaestus_build.pipeline.atmosphere_stage import epoch_keys
from hephaestus_build.pipeline.encoding import encode_gridded_atmosphere, encode_images
from hephaestus_build.pipeline.ledger import keys_of_kind
from hephaestus_build.pipeline.stage import Build, Stage
from hephaestus_build.published.annotation_tables import AnnotationTables
from hephaestus_build.published.published_cube import PublishedCube


@dataclass(frozen=True)
class PublishedMaskStage(Stage):
    """Stores the annotations and masks of a published cube.

    Attributes
    ----------
    published : PublishedCube
        The published cube.
    annotations : AnnotationTables
        Its annotations.
    """

    published: PublishedCube
    annotations: AnnotationTables
    name = "annotations"

    def items(self, build: Build, only: Collection[GranuleKey] | None = None) -> Sequence[GranuleKey]:
        """Return the annotated pairs whose masks are missing, on another grid or to be replaced."""
        if not self.published.has_masks:
            return ()
        all_keys = list(map(GranuleKey.of_mask, self.published.annotated))
        keys = all_keys if only is None else keys_of_kind(only, "mask")
        return [key for key in keys if self._must_store(build, key)]

    def run(self, build: Build, key: GranuleKey) -> None:
        """Store the annotation and the masks of one pair."""
        ledger, pair = build.ledger, key.pair
        receipts, masks = self.published.masks(pair)
        values = self.annotations.values(pair)
        if masks:
            self.annotations.check_codes(pair, masks)
        granule = MaskGranule.make(
            pair,
            fingerprint_inputs(grid_as_dict(ledger.require_grid()), values),
            receipts,
            annotation=values,
            grid_inputs=ledger.grid_inputs(),
        )
        ledger.record(granule, encode_images(masks))

    def _must_store(self, build: Build, key: GranuleKey) -> bool:
        granule = build.ledger.get(key)
        return (
            not isinstance(granule, MaskGranule)
            or not granule.is_complete
            or granule.grid_inputs != build.ledger.grid_inputs()
            or build.ledger.must_refetch(key)
        )


@dataclass(frozen=True)
class PublishedAtmosphereStage(Stage):
    """Stores ERA5 as a published cube has it: on the frame's grid, at an hour that it does not state.

    Attributes
    ----------
    published : PublishedCube
        The published cube.
    """

    published: PublishedCube
    name = "atmosphere"

    def items(self, build: Build, only: Collection[GranuleKey] | None = None) -> Sequence[GranuleKey]:
        """Return the dates of the published cube whose atmosphere is missing or to be replaced."""
        if not self.published.has_atmosphere:
            return ()
        keys = epoch_keys(build) if only is None else keys_of_kind(only, "epoch")
        ledger, inputs = build.ledger, build.ledger.grid_inputs()
        return [
            key
            for key in keys
            if key.day in self.published.days and (ledger.needs(key, inputs) or ledger.must_refetch(key))
        ]

    def run(self, build: Build, key: GranuleKey) -> None:
        """Store the atmosphere of one date."""
        ledger = build.ledger
        receipts, fields = self.published.atmosphere(key.day)
        era5 = (None, EXPVER_PUBLISHED, PUBLISHED) if fields else None
        granule = EpochGranule.make(key.day, ledger.grid_inputs(), receipts, era5)
        ledger.record(granule, encode_gridded_atmosphere(fields))
