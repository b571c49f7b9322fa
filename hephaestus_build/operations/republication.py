"""Publication of a generation's content once more, with some granules replaced: for repair and migration."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from hephaestus_build.core.atomic_io import translate_os_errors
from hephaestus_build.cube.granules import Granule
from hephaestus_build.cube.inventory import CubeInventory
from hephaestus_build.cube.overview_parts import find_orphans
from hephaestus_build.cube.storage.generations import FrameStore, Generation
from hephaestus_build.cube.storage.writer import write_cube_store
from hephaestus_build.pipeline.global_attributes import attributes_of_granules


def republish(
    frame_store: FrameStore,
    current: Generation,
    contents: CubeInventory,
    granules: Mapping[str, Granule] = MappingProxyType({}),
) -> None:
    """Publish the content of a generation once more, with rewritten metadata and tables.

    Parameters
    ----------
    frame_store : FrameStore
        Folder of the frame's generations, locked; its staging area holds `granules`.
    current : Generation
        The published generation, whose other objects are linked.
    contents : CubeInventory
        What it is made of.
    granules : mapping of str to Granule
        Granules that replace those of the same keys.

    Raises
    ------
    HephaestusError
        If it cannot be written; the published cube stays unchanged.
    """

    def origin(granule: Granule) -> dict[str, str]:
        if granule.key in granules:
            return frame_store.staging.chunk_paths(granule)
        return {name: f"{current.store}/{key}" for name, key in contents.chunk_keys.keys(granule)}

    kept = {**contents.granules, **granules}
    for key in find_orphans(kept, contents.grid):  # their pairs are lost
        del kept[key]
    # products of another source than those that they replace change what the attributes say of all
    stated = attributes_of_granules(kept.values())
    attributes = {
        name: stated.get(name, value)
        for name, value in contents.attributes.items()
        if name != "imported_from" or name in stated
    }
    whole = contents.succeed(contents.grid, kept, attributes, listed=(), history=frame_store.history())
    with (
        translate_os_errors(f"{frame_store.frame}: publishing the cube again"),
        frame_store.new_generation() as store,
    ):
        frame_store.staging.sync(granules.values())
        write_cube_store(store, whole, origin)
