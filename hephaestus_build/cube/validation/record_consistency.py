"""Validation of a cube's arrays and attributes against its record, and of the record itself.

A manifest proves that the files are the listed ones, not that they belong to this record. Axes, georeference,
tables and attributes are derived from the record and can be compared with it. For images, the record states
the fraction of each phase that has data. A consistent forgery of both record and arrays cannot be detected
from the cube alone; docs/reliability.md describes what is trusted.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta

import msgspec
import numpy as np
import zarr

from hephaestus_build.core.atomic_io import encode_json
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.machine.limits import read_machine_limits
from hephaestus_build.core.plain_files import walk_files
from hephaestus_build.core.progress import NullListener, ProgressListener
from hephaestus_build.cube.fingerprints import fingerprint_grid
from hephaestus_build.cube.geozarr import compare_by_uuid
from hephaestus_build.cube.granules import (
    DemGranule,
    EpochGranule,
    InterferogramGranule,
    MaskGranule,
    OptionalGranule,
    OverviewGranule,
    PairGranule,
)
from hephaestus_build.cube.group_tables import (
    OVERVIEW,
    make_child_attributes,
    make_group_tables,
    overview_grid,
)
from hephaestus_build.cube.inventory import CubeInventory
from hephaestus_build.cube.overview_parts import OverviewParts
from hephaestus_build.cube.reading.plain_store import PlainStore
from hephaestus_build.cube.reading.store_metadata import StoreMetadata, read_store_metadata
from hephaestus_build.cube.reading.window_reader import WindowReader
from hephaestus_build.cube.schema import GRID_MAPPING, cube_schema
from hephaestus_build.cube.storage.frame_folder import MANIFEST, PROVENANCE
from hephaestus_build.cube.storage.generations import Generation
from hephaestus_build.cube.storage.writer import (
    encode_metadata,
    grid_mapping_attributes,
    make_group_attributes,
    make_tables,
)
from hephaestus_build.cube.validation.array_metadata import ValidationFinding, short_repr
from hephaestus_build.cube.validation.wording import is_wording

#: Values of ``ValidationFinding.where`` that a repair cannot correct, since it starts from the same record.
UNREPAIRABLE = ("record", "insar_difference")
#: Granules that have images only if every product was obtained.
_ALL_OR_NOTHING = (DemGranule, EpochGranule, InterferogramGranule)
_EPOCH = date(1970, 1, 1)
#: Tolerance for the rounding of ``valid_fraction`` to 6 decimals, and pi rounded up for float32.
_FRACTION_TOLERANCE, _MAX_PHASE = 1e-6, 3.1415929


def check_record_consistency(
    generation: Generation, listener: ProgressListener | None = None
) -> list[ValidationFinding]:
    """Check the record of a cube for contradictions, and compare arrays and attributes with it.

    The cube must already have been verified against its manifest and against the schema.

    Parameters
    ----------
    generation : Generation
        The generation to check.
    listener : ProgressListener, optional
        Receives the progress.

    Returns
    -------
    list of ValidationFinding
        Empty if everything is consistent.

    Raises
    ------
    HephaestusError
        If the record cannot be read.
    """
    contents = generation.read_inventory()
    if contents.is_outdated:
        return []  # a stale cube: another version derived its arrays from the record
    try:
        metadata = read_store_metadata(generation.store)
    except (OSError, ValueError) as error:
        return [ValidationFinding("cube", str(error))]
    findings = [
        *_check_record(generation, contents),
        *_check_files(generation, contents),
        *_check_attributes(contents, metadata),
    ]
    if findings:
        return findings
    return [*_check_tables(generation, contents, metadata), *_check_phases(generation, contents, listener)]


def _check_record(generation: Generation, contents: CubeInventory) -> Iterator[ValidationFinding]:
    """Yield contradictions within the record."""
    inputs, grid = fingerprint_grid(contents.grid), contents.grid
    for key, granule in contents.granules.items():
        if isinstance(granule, OverviewGranule):
            parts = OverviewParts.find(contents.granules, granule.pair, grid)
            factor = contents.overview_factor
            if parts is None or granule.inputs != parts.fingerprint(grid, factor):
                yield ValidationFinding("record", f"{key} was made of other images than the cube has")
            continue
        made_on = (granule.grid_inputs or inputs) if isinstance(granule, MaskGranule) else granule.inputs
        if granule.is_complete and made_on != inputs:
            yield ValidationFinding(
                "record", f"{key} was made with another grid or another schema than the cube has"
            )
        if isinstance(granule, _ALL_OR_NOTHING) and granule.objects and not granule.is_complete:
            yield ValidationFinding("record", f"{key} is owed, and yet it has images")
        if isinstance(granule, DemGranule) and granule.grid not in (None, grid):
            yield ValidationFinding("record", f"{key} has another grid than the cube")
        if isinstance(granule, PairGranule):
            for receipt in granule.receipts:
                if not receipt.product.startswith(granule.name):
                    yield ValidationFinding("record", f"{key} was made from another pair's {receipt.product}")
        if isinstance(granule, OptionalGranule) and granule.place is not None:
            for receipt in granule.receipts:
                if not receipt.product.startswith(granule.name.rpartition(".")[2]):
                    yield ValidationFinding("record", f"{key} was made from {receipt.product}, of elsewhere")
        if isinstance(granule, EpochGranule) and granule.is_complete and granule.era5_time is not None:
            hour = _EPOCH + timedelta(hours=granule.era5_time)
            if abs(hour - granule.day) > timedelta(days=1):
                yield ValidationFinding("record", f"{key} has ERA5 fields of {hour}")
    attributes = contents.attributes
    epochs = [granule for granule in contents.granules.values() if isinstance(granule, EpochGranule)]
    sources = {granule.source for granule in epochs if granule.source}
    recorded = {
        "pixel_size_m": [round(size, 2) for size in contents.grid.pixel_size_m()],
        "era5_source": ", ".join(sorted(sources)),
        "frame": _frame_from_path(generation) or attributes.get("frame"),
    }
    for name, expected in recorded.items():
        if attributes.get(name) != expected:
            yield ValidationFinding(
                "record",
                f"attribute {name} is {short_repr(attributes.get(name))}, not {short_repr(expected)}",
            )


def _frame_from_path(generation: Generation) -> str | None:
    """Return the frame in the path of a published cube, or None for a cube elsewhere."""
    try:
        return Frame(generation.store.stem).id if generation.number else None
    except UsageError:
        return None


def _check_files(generation: Generation, contents: CubeInventory) -> Iterator[ValidationFinding]:
    """Yield files that do not belong to the cube that the record describes."""
    expected = {MANIFEST, PROVENANCE, *encode_metadata(contents), *contents.retired_keys}
    for granule in contents.granules.values():
        expected.update(path for _, path in contents.chunk_keys.keys(granule))
    for path, _ in walk_files(generation.store):
        if path not in expected:
            yield ValidationFinding("cube", f"{short_repr(path)} does not belong to it")


def _check_attributes(contents: CubeInventory, metadata: StoreMetadata) -> Iterator[ValidationFinding]:
    mapping = f"{OVERVIEW}/{GRID_MAPPING}"
    expected = {
        "": make_group_attributes(contents),
        GRID_MAPPING: grid_mapping_attributes(contents.grid),
        mapping: grid_mapping_attributes(overview_grid(contents)),
    }
    found = {
        "": metadata.attributes,
        **{path: metadata.arrays.get(path, {}).get("attributes", {}) for path in (GRID_MAPPING, mapping)},
    }
    for group in cube_schema().groups.values():
        expected[group.name] = make_child_attributes(contents, group)
        found[group.name] = metadata.groups.get(group.name, {})
    for where, attributes in expected.items():
        right = compare_by_uuid(msgspec.json.decode(encode_json(attributes)))
        stored = compare_by_uuid(found[where])
        for name in sorted(right.keys() | stored.keys()):
            if name in ("crs_wkt", "spatial_ref"):
                continue  # the text depends on the version of PROJ; check_schema compares its meaning
            if where and is_wording(name, stored.get(name), right.get(name)):
                continue
            if right.get(name) != stored.get(name):
                yield ValidationFinding(
                    where or "cube",
                    f"attribute {short_repr(name)} is {short_repr(stored.get(name))}, the record says "
                    f"{short_repr(right.get(name))}",
                )


def _check_tables(
    generation: Generation, contents: CubeInventory, metadata: StoreMetadata
) -> Iterator[ValidationFinding]:
    """Yield coordinates and tables whose values differ from those derived from the record."""
    store = PlainStore(generation.store, metadata.arrays)
    tables = make_tables(contents)
    for name, expected in {**tables, **make_group_tables(contents, tables)}.items():
        if name not in metadata.arrays:
            continue  # one of its dimensions is empty
        try:
            values = np.asarray(zarr.open_array(store, path=name, mode="r")[...])
        except Exception as error:  # zarr and its codecs raise many types for damaged chunks
            yield ValidationFinding(name, f"cannot be read: {type(error).__name__}: {error}")
            continue
        if values.shape != expected.shape:
            yield ValidationFinding(name, f"has the shape {values.shape}, the record says {expected.shape}")
            continue
        other = values != expected
        if expected.dtype.kind == "f":
            other &= ~(np.isnan(values) & np.isnan(expected))
        if other.any():
            place = tuple(int(index) for index in np.argwhere(other)[0])
            yield ValidationFinding(
                name,
                f"{int(other.sum())} values differ from the record, such as {short_repr(values[place])} at "
                f"{place} instead of {short_repr(expected[place])}",
            )


def _check_phases(
    generation: Generation, contents: CubeInventory, listener: ProgressListener | None
) -> Iterator[ValidationFinding]:
    """Yield pairs whose phase is damaged, is not an angle, or differs from the recorded valid fraction."""
    cube = WindowReader(generation.store)
    pairs = [
        granule
        for granule in contents.granules.values()
        if isinstance(granule, InterferogramGranule) and granule.is_complete
    ]
    listener = listener or NullListener()
    listener.stage("phases", len(pairs))
    with ThreadPoolExecutor(read_machine_limits().image_workers, thread_name_prefix="verify") as pool:
        for granule, fault in zip(
            pairs, pool.map(lambda granule: _find_phase_fault(cube, granule), pairs), strict=True
        ):
            listener.advance("phases")
            if fault:
                yield ValidationFinding("insar_difference", f"{granule.name}: {fault}")


def _find_phase_fault(cube: WindowReader, granule: InterferogramGranule) -> str:
    valid = 0
    try:
        for _, values in cube.iter_strips("insar_difference", granule.pair):
            valid += int(np.count_nonzero(values))
            if not (np.abs(values) <= _MAX_PHASE).all():  # also true for NaN
                return "it holds values that are not angles from -pi to pi"
    except HephaestusError as error:
        return str(error)
    share, recorded = valid / cube.grid.size, granule.valid_fraction
    return (
        ""
        if abs(share - recorded) <= _FRACTION_TOLERANCE
        else f"{share:.6f} of it has data, the record says {recorded}"
    )
