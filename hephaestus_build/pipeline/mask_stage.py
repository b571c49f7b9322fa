"""Stage of the masks: the experts' polygons, rasterized on the frame's grid."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

from hephaestus_build.core.frames import Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.provenance import Outcome, Receipt
from hephaestus_build.cube.fingerprints import fingerprint_inputs, grid_as_dict
from hephaestus_build.cube.granules import GranuleKey, MaskGranule
from hephaestus_build.pipeline.encoding import encode_masks
from hephaestus_build.pipeline.interferogram_stage import select_all_pairs
from hephaestus_build.pipeline.ledger import keys_of_kind
from hephaestus_build.pipeline.stage import Build, Stage
from hephaestus_build.processing.mask_rasterization import (
    PreviewGeometry,
    rasterize_annotation,
    resolve_preview_geometry,
)
from hephaestus_build.sources.annotations.record import FLAGS, Annotation


class MaskStage(Stage):
    """Rasterizes the masks of annotated pairs and stores them with the annotation."""

    name = "annotations"

    def items(self, build: Build, only: Collection[GranuleKey] | None = None) -> Sequence[GranuleKey]:
        """Return the annotated pairs, listed or not, whose masks are missing or outdated."""
        if only is None:
            selection = select_all_pairs(build)
            granules = build.ledger.snapshot().values()
            drawn = (granule.pair for granule in granules if isinstance(granule, MaskGranule))
            pairs = sorted({*selection.wanted, *selection.unlisted, *drawn})
            keys = list(map(GranuleKey.of_mask, pairs))
        else:
            keys = keys_of_kind(only, "mask")
        return [key for key in keys if key.pair in build.context.annotations and _must_draw(build, key)]

    def run(self, build: Build, key: GranuleKey) -> None:
        """Rasterize and store the masks of one pair."""
        context, ledger = build.context, build.ledger
        pair, grid = key.pair, ledger.require_grid()
        annotation = context.annotations[pair]
        preview = None
        shards: dict[str, bytes] = {}
        receipts: tuple[Receipt, ...] = ()
        if annotation.polygons:
            geometry, receipts = _preview_geometry(build, pair, grid)
            shards = encode_masks(rasterize_annotation(annotation, geometry, grid))
            preview = asdict(geometry), pair in context.modified, context.modified.get(pair)
        granule = MaskGranule.make(
            pair,
            _mask_inputs(grid, annotation),
            receipts,
            annotation=_annotation_values(annotation),
            grid_inputs=ledger.grid_inputs(),
            preview=preview,
        )
        ledger.record(granule, shards)


def _must_draw(build: Build, key: GranuleKey) -> bool:
    """Return whether masks must be drawn: they are missing, or were made from other inputs.

    They depend on the preview's geometry; it may have been added or replaced with the pair's other files.
    Masks that were imported from a published cube stay, as long as they lie on the frame's grid.
    """
    modified, annotation = build.context.modified, build.context.annotations[key.pair]
    granule = build.ledger.get(key)
    if isinstance(granule, MaskGranule) and granule.is_complete and granule.is_imported:
        return build.ledger.must_refetch(key) or granule.grid_inputs != build.ledger.grid_inputs()
    if not isinstance(granule, MaskGranule) or build.ledger.needs(
        key, _mask_inputs(build.ledger.require_grid(), annotation)
    ):
        return True
    if granule.projection is None or granule.pair not in modified:
        return False
    return not granule.was_listed or modified[granule.pair] not in (None, granule.modified)


def _mask_inputs(grid: Grid, annotation: Annotation) -> str:
    """Return the fingerprint of a pair's masks."""
    written = {name: value for name, value in vars(annotation).items() if name not in ("frame", "pair")}
    written["polygons"] = [polygon.tolist() for polygon in annotation.polygons]
    return fingerprint_inputs(grid_as_dict(grid), written)


def _preview_geometry(build: Build, pair: Pair, grid: Grid) -> tuple[PreviewGeometry, tuple[Receipt, ...]]:
    """Return how the annotated preview maps to the grid: from the preview, or by default.

    A preview that exists and could not be fetched is owed; until it arrives the masks use the default.
    """
    context = build.context
    if pair not in context.modified:
        return resolve_preview_geometry(context.frame, grid, None), ()
    receipt, size = context.interferograms.preview(context.frame, pair)
    needed = () if receipt.outcome is Outcome.ABSENT else (receipt,)
    return resolve_preview_geometry(context.frame, grid, size), needed


def _annotation_values(annotation: Annotation) -> dict[str, Any]:
    """Return the annotation's values, by name of the cube's variable."""
    names = (*FLAGS, "phase", "confidence", "caption", "unique_id")
    return {name: getattr(annotation, name) for name in names}
