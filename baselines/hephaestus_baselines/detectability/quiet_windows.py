"""Windows of interferograms in which the experts saw no deformation, for sources to be added to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hephaestus_baselines.config.run_config import Recipe
from hephaestus_baselines.data.cube_integrity import CubeIntegrityChecker
from hephaestus_baselines.data.dataset_items import DatasetItem
from hephaestus_baselines.data.preparation import group_samples
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.grid import Grid
from hephaestus_build.cube.discovery import are_simulated
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.reading.window_reader import WindowReader
from hephaestus_build.dataset.samples import Sample, samples_from_cube
from hephaestus_build.dataset.splits import SplitPart, make_split, split_rule
from hephaestus_build.dataset.tiling import DEFAULT_TILING, TilingMode, choose_tiles

#: The threshold is chosen on the first, sources are added to the second.
_PARTS: tuple[SplitPart, ...] = ("validation", "test")


@dataclass(frozen=True)
class QuietWindows:
    """The quiet windows of the validation and test parts of a split.

    Attributes
    ----------
    items : mapping of part to tuple of DatasetItem
        Windows of interferograms without deformation, each with its tile.
    stores : mapping of frame id to pathlib.Path
        Store of each cube's generation.
    grids : mapping of frame id to Grid
        Grid of each frame.
    attributes : mapping of frame id to mapping
        Global attributes of each cube.
    split_name, split_sha256 : str
        Name and hash of the split of these cubes.
    tiling : str
        How the windows were placed.
    is_simulated : bool
        Whether any cube is simulated.
    """

    items: Mapping[SplitPart, tuple[DatasetItem, ...]]
    stores: Mapping[str, Path]
    grids: Mapping[str, Grid]
    attributes: Mapping[str, Mapping[str, object]]
    split_name: str
    split_sha256: str
    tiling: TilingMode
    is_simulated: bool


def find_quiet_windows(
    stores: Mapping[str, Path],
    recipe: Recipe,
    *,
    mixed: bool = False,
    checker: CubeIntegrityChecker | None = None,
) -> QuietWindows:
    """Return the quiet windows of cubes, with the split, the window size and the tiling of a run.

    Windows that are centred on labels need a label; then the frame is covered with the default tiling.

    Parameters
    ----------
    stores : mapping of frame id to pathlib.Path
        Published cubes; each is pinned to its generation.
    recipe : Recipe
        The run's configuration.
    mixed : bool
        Whether real and simulated cubes may be mixed.
    checker : CubeIntegrityChecker, optional
        Checks all objects of the windows against the manifests before they are read.

    Raises
    ------
    HephaestusError
        If there is no cube, or a part has no quiet interferogram.
    """
    stores = {frame: path.resolve() for frame, path in sorted(stores.items())}
    if not stores:
        raise HephaestusError("there is no cube to add sources to; `hephaestus build FRAME` builds one")
    simulated = are_simulated(stores.values(), mixed=mixed)
    samples: list[Sample] = []
    for store in stores.values():
        if checker is not None:
            checker.check_cube(store, ())
        with open_pinned_cube(store, chunks=None) as cube:
            samples += samples_from_cube(cube)
    split = make_split(split_rule(recipe.split), samples, source={"cubes": len(stores)})
    readers = {frame: WindowReader(store) for frame, store in stores.items()}
    tiling: TilingMode = DEFAULT_TILING if recipe.tiling == "label-centred" else recipe.tiling
    items: dict[SplitPart, tuple[DatasetItem, ...]] = {}
    for part in _PARTS:
        quiet = [
            group
            for group in group_samples(split, part, series=recipe.series)
            if not any(sample.positive for sample in group)
        ]
        if not quiet:
            raise HephaestusError(
                f"the {part} part of {recipe.split} has no interferogram without deformation in these cubes; "
                "build further frames or dates with `hephaestus build`"
            )
        items[part] = tuple(
            DatasetItem(group, False, tile)
            for group in quiet
            for tile in choose_tiles(tiling, group[0], readers[group[0].frame.id].grid, recipe.size).tiles
        )
        if checker is not None:
            for frame, store in stores.items():
                pairs = {one.pair for group in quiet for one in group if one.frame.id == frame}
                if pairs:
                    checker.check_cube(store, pairs)
    return QuietWindows(
        items=items,
        stores=stores,
        grids={frame: reader.grid for frame, reader in readers.items()},
        attributes={frame: reader.attributes for frame, reader in readers.items()},
        split_name=split.name,
        split_sha256=split.sha256,
        tiling=tiling,
        is_simulated=bool(simulated),
    )
