"""Rebuilding of a cube whose record is lost: what its arrays still tell, and the archive and the cache have.

The provenance says what each stored object was made from. Without it, no object can be trusted or extended,
so the cube is built again from the products, which the cache holds as far as it was not pruned. The arrays
tell which pairs that were. Dates and pairs keep their positions, and chunks their keys, so that a reader that
opened the cube by name never gets the values of another pair.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.plain_files import read_plain_file, walk_files
from hephaestus_build.core.progress import ProgressListener
from hephaestus_build.core.provenance import Outcome
from hephaestus_build.core.settings import Settings
from hephaestus_build.cube.date_axes import DateAxes
from hephaestus_build.cube.granules import GranuleKey
from hephaestus_build.cube.inventory import PAIR_GROUPS, CubeInventory
from hephaestus_build.cube.key_spaces import KEY_SPACES, RETIRED_CHUNK, KeyHistory, KeySpace
from hephaestus_build.cube.pair_tables import PAIR_STATUS_CODES
from hephaestus_build.cube.reading.store_metadata import read_store_metadata
from hephaestus_build.cube.reading.window_reader import WindowReader
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.cube.storage.generations import FrameStore
from hephaestus_build.pipeline.build import make_granules
from hephaestus_build.pipeline.plan import BuildRequest, PairSelection
from hephaestus_build.pipeline.prepare import open_ledger, prepare_context
from hephaestus_build.pipeline.publish import publish
from hephaestus_build.pipeline.stage import Build


@dataclass(frozen=True)
class RecoveredCube:
    """What the arrays of a cube tell without its record.

    Attributes
    ----------
    inventory : CubeInventory
        Its grid, attributes, axes and keys, without granules.
    pairs : dict of Pair to bool
        Pairs whose outcome the cube states, and whether it has the interferogram.
    variables : tuple of str
        Optional variables.
    """

    inventory: CubeInventory
    pairs: Mapping[Pair, bool]
    variables: tuple[str, ...]


def recover_cube(store: Path) -> RecoveredCube | None:
    """Return what the arrays of a store tell; None if they are damaged or of another schema."""
    try:
        windows = WindowReader(store)
        metadata = read_store_metadata(store)
        days = _to_days(windows.read_table("epoch"))
        pairs = map(
            Pair, *(_to_days(windows.read_table(f"pairs/{name}")) for name in ("primary", "secondary"))
        )
        arrays = metadata.arrays
        inventory = CubeInventory(
            windows.grid,
            {},
            dict(metadata.attributes),
            DateAxes(days, days, tuple(pairs)),
            _key_history(store, arrays["epoch"], in_pairs=False),
            _key_history(store, arrays["pairs/primary"], in_pairs=True),
        )
        status = windows.read_table("pair_status")
        known = {
            Pair(days[first], days[second]): status[first, second] == PAIR_STATUS_CODES[Outcome.DOWNLOADED]
            for first, second in np.argwhere(status).tolist()  # 0 where no granule was made
        }
        variables = cube_schema().variables.items()
        optional = {item.quantity for name, item in variables if item.optional and name in arrays}
        return None if inventory.is_outdated else RecoveredCube(inventory, known, tuple(sorted(optional)))
    except (HephaestusError, OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def _to_days(values: npt.NDArray[Any]) -> tuple[date, ...]:
    """Return the dates of a coordinate, which counts days since 1970-01-01."""
    return tuple(date(1970, 1, 1) + timedelta(days=int(value)) for value in values.tolist())


def _key_history(store: Path, array: Any, *, in_pairs: bool) -> KeyHistory:
    """Return the key space of an array, with the retired keys that are on disk."""
    retired: dict[KeySpace, list[str]] = defaultdict(list)
    for key, facts in walk_files(store):
        if facts.st_size != len(RETIRED_CHUNK) or key.startswith(PAIR_GROUPS) != in_pairs:
            continue
        if read_plain_file(store, key, len(RETIRED_CHUNK)) == RETIRED_CHUNK:
            levels = 2 if in_pairs else 1
            name = key.split("/", levels)[-1]
            retired[next(space for space in KEY_SPACES if space.split_chunk_name(name))].append(key)
    history = KeyHistory(
        KEY_SPACES.index(KeySpace.from_metadata(array)),
        tuple(tuple(sorted(retired[space])) for space in KEY_SPACES),
    )
    history.check()
    return history


def rebuild_lost_cube(
    frame: Frame,
    settings: Settings,
    frame_store: FrameStore,
    store: Path | None,
    listener: ProgressListener | None,
) -> tuple[int, tuple[str, ...], tuple[str, ...]]:
    """Build a cube again whose record is lost, and publish it; call it with the frame locked.

    Parameters
    ----------
    frame : Frame
        The frame.
    settings : Settings
        Archives and folders.
    frame_store : FrameStore
        Store of the frame.
    store : pathlib.Path or None
        Store whose record is lost; None if the store is gone too. Then the pairs are those of a new build.
    listener : ProgressListener, optional
        Receives progress.

    Returns
    -------
    tuple of int, tuple of str and tuple of str
        Number of the new generation, and the granules that were made and those that could not be.

    Raises
    ------
    HephaestusError
        If the archive does not answer, or has nothing of the cube any more.
    """
    found = recover_cube(store) if store is not None else None
    request = BuildRequest(
        frame, pairs="all" if found else "auto", variables=found.variables if found else ()
    )
    if found is not None:
        settings = settings.model_copy(update={"overview_factor": found.inventory.overview_factor})
    context = prepare_context(
        request,
        settings,
        frame_store,
        listener,
        contents=found.inventory if found else None,
        afresh=found is None,
    )
    if found is not None:
        listed = tuple(pair for pair in sorted(found.pairs) if pair in context.modified)
        unlisted = tuple(pair for pair in context.selection.unlisted if pair in found.pairs)
        context = replace(context, selection=PairSelection(listed, unlisted, {}, "all"))
    build = Build(context, open_ledger(context))
    make_granules(build)
    result = publish(build)
    granules = build.ledger.snapshot()
    held = [pair for pair, stored in found.pairs.items() if stored] if found else context.selection.wanted
    wanted = set(map(GranuleKey.of_pair, held))
    made = tuple(sorted(key for key, granule in granules.items() if granule.is_complete))
    return result.generation, made, tuple(sorted(wanted.difference(made)))
