"""Stage of the overviews: small images of every stored pair, made of what is stored already."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from hephaestus_build.core.atomic_io import hash_bytes, translate_os_errors
from hephaestus_build.core.era5_grid import era5_area_around
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.plain_files import read_plain_file
from hephaestus_build.cube.codecs.chunk_decoder import decode_chunk
from hephaestus_build.cube.codecs.image_encoder import object_name, strip_count, strip_width
from hephaestus_build.cube.granules import Granule, GranuleKey, OverviewGranule
from hephaestus_build.cube.overview_parts import COHERENCE, MASK, PHASE, WATER_VAPOUR, OverviewParts
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.pipeline.encoding import decimate_pair, encode_overview
from hephaestus_build.pipeline.ledger import keys_of_kind
from hephaestus_build.pipeline.stage import Build, Stage


class OverviewStage(Stage):
    """Draws the overviews of pairs from their stored objects; nothing is fetched."""

    name = "overviews"

    def items(self, build: Build, only: Collection[GranuleKey] | None = None) -> Sequence[GranuleKey]:
        """Return the stored pairs whose overview is missing, or was made of other objects."""
        ledger, factor = build.ledger, build.context.settings.overview_factor
        keys = (
            list(map(GranuleKey.of_overview, sorted(ledger.complete_pairs())))
            if only is None
            else keys_of_kind(only, "overview")
        )
        if not keys:
            return ()
        granules, grid = ledger.snapshot(), ledger.require_grid()

        def must_draw(key: GranuleKey) -> bool:
            parts = OverviewParts.find(granules, key.pair, grid)
            return parts is not None and ledger.needs(key, parts.fingerprint(grid, factor))

        return [key for key in keys if must_draw(key)]

    def run(self, build: Build, key: GranuleKey) -> None:
        """Draw and store the overview of one pair.

        Raises
        ------
        HephaestusError
            If a stored object is damaged.
        """
        context, ledger = build.context, build.ledger
        pair, grid, factor = key.pair, ledger.require_grid(), context.settings.overview_factor
        parts = OverviewParts.find(ledger.snapshot(), pair, grid)
        if parts is None:
            return  # the pair is no longer stored
        area = era5_area_around(grid)
        fields = [_read_object(build, epoch, WATER_VAPOUR, area.shape) for epoch in parts.epochs]
        contents = encode_overview(
            grid,
            factor,
            ledger.take_small_images(pair)
            or decimate_pair(
                grid,
                factor,
                phase=_iter_strips(build, parts.interferogram, PHASE),
                coherence=_iter_strips(build, parts.interferogram, COHERENCE),
            ),
            mask=_iter_strips(build, parts.mask, MASK) if parts.mask is not None else (),
            water_vapour=(fields[0], fields[1]) if fields else None,
        )
        ledger.record(OverviewGranule.make(pair, parts.fingerprint(grid, factor), factor), contents)


def _iter_strips(build: Build, granule: Granule, variable: str) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yield the first column and the values of every stored strip of an image."""
    height, width = build.ledger.require_grid().shape
    most = cube_schema().variables[variable].strips
    columns = strip_width(width, most)
    for strip in range(strip_count(width, most)):
        if (name := object_name(variable, strip)) in granule.objects:
            yield strip * columns, _read_object(build, granule, name, (height, columns))


def _read_object(build: Build, granule: Granule, name: str, shape: tuple[int, int]) -> npt.NDArray[Any]:
    """Return the values of a stored object, after comparing it with its hash.

    Raises
    ------
    HephaestusError
        If it is damaged or gone.
    """
    context = build.context
    dtype = cube_schema().variables[name.partition(".")[0]].dtype
    item, path = granule.objects[name], Path(context.object_paths(granule)[name])
    published = context.published.get(granule.key) is granule
    try:
        content = read_plain_file(path.parent, path.name, item.size)
        if hash_bytes(content) != item.digest:
            raise ValueError("it has other content than was stored")
        return decode_chunk(content, shape, dtype)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and not published:
            with translate_os_errors(f"{context.frame}: drawing the overviews"):
                raise
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        mend = f"`hephaestus repair {context.frame}` rebuilds it, then " if published else ""
        raise HephaestusError(
            f"{context.frame}: {name} of {granule.key}, which an overview is drawn from, cannot be read "
            f"({reason}; {path}); {mend}run the same command again"
        ) from error
