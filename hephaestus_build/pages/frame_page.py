"""The page of a frame, gathered from what is recorded of it and from the images of its cube."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import xarray as xr

from hephaestus_build import __version__
from hephaestus_build.core.bounds import Bounds
from hephaestus_build.core.era5_grid import EXPVER_FINAL, EXPVER_PRELIMINARY
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frame_search import find_frames
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.plain_text import sanitize_text, utc_text
from hephaestus_build.core.provenance import Receipt
from hephaestus_build.core.volcanoes import VolcanoCone, volcanoes_of_frame
from hephaestus_build.cube.array_attributes import DEM_SOURCE
from hephaestus_build.cube.granules import (
    DEM_KEY,
    DemGranule,
    EpochGranule,
    Granule,
    GranuleKey,
    InterferogramGranule,
)
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.operations.pair_table import GONE, STORED, UNWANTED, make_pair_rows
from hephaestus_build.pages.cube_images import read_cube_images
from hephaestus_build.pages.encode_pictures import encode_pictures
from hephaestus_build.pages.frame_record import FrameRecord
from hephaestus_build.pages.gaps import find_gaps
from hephaestus_build.pages.page_data import (
    FramePage,
    FramePictures,
    OwedProduct,
    PageDate,
    PagePair,
    PageProduct,
    PageVolcano,
)
from hephaestus_build.pipeline.missing_products import find_missing_products, partition_accepted
from hephaestus_build.sources.annotations.record import FLAGS

_Box = tuple[float, float, float, float]  # west, south, east and north edge, degrees
#: Pairs with pictures in a page, unless another number is asked for.
NEWEST = 60
#: Size that a page stays under, bytes; what all but the pictures of pairs takes of it, and each further pair.
_PAGE, _REST, _ROW = 5_000_000, 600_000, 600
_ERA5_WORDS = {EXPVER_FINAL: "final", EXPVER_PRELIMINARY: "preliminary"}
_FACTS = (
    "platform_heading_deg",
    "incidence_angle_deg",
    "look_direction",
    "center_time",
    "sign_convention",
    "radar_wavelength_m",
    "pixel_size_m",
    "overview_factor",
    "schema_version",
    "hephaestus_build_version",
    "uncertain_geometry",
)
#: Variables whose source and licence are credited where they are shown, with what they are called.
_CREDITED = {
    "insar_difference": "Interferograms",
    "dem": "Heights",
    "era5_total_column_water_vapour": "Water vapour",
    "annotated": "Annotations",
}


def make_frame_page(
    record: FrameRecord,
    *,
    newest: int = NEWEST,
    pair: Pair | None = None,
    most: int | None = None,
) -> FramePage:
    """Return the page of a frame.

    Parameters
    ----------
    record : FrameRecord
        What is recorded of the frame.
    newest : int
        Number of the newest pairs that have pictures in the page.
    pair : Pair, optional
        The pair that is shown first, which then has pictures too; by default the newest one.
    most : int, optional
        Characters that the pictures of the pairs may take together; by default so many that the page stays
        small.

    Raises
    ------
    UsageError
        If `pair` is not stored.
    HephaestusError
        If the cube is damaged.
    """
    known = record.known
    rows = make_pair_rows(known)
    stored = [Pair(row["primary"], row["secondary"]) for row in rows if row["status"] in (STORED, GONE)]
    if pair is not None and pair not in stored:
        raise UsageError(
            f"{record.frame}: no interferogram of {pair} is stored; `hephaestus pairs {record.frame}` "
            "lists them"
        )
    wanted = {*newest_pairs(stored, newest), *([pair] if pair else [])}
    contents = record.contents
    pictures: FramePictures | None = None
    credited: tuple[str, ...] = ()
    if record.store is not None and contents is not None:
        with open_pinned_cube(
            record.store, chunks=None, verify="first"
        ) as cube:  # damage is not shown as data
            images = read_cube_images(cube, wanted, record.data_dir / "predictions" / f"{record.frame}.zarr")
            small = max(_PAGE - _REST - _ROW * len(rows), _PAGE // 2)
            pictures = encode_pictures(cube, images, most or small) if images.pairs else None
            credited = _credits(cube, _shown_variables(pictures, rows))
    names = list(pictures.pairs) if pictures else []
    grid = contents.grid if contents is not None else _begun_grid(known.granules)
    owed, accepted = partition_accepted(find_missing_products(known.granules), record.frame, known.accept)
    metres = known.baselines.metres if known.baselines else {}
    satellites = contents.satellites if contents is not None else {}
    drawn = [Pair(row["primary"], row["secondary"]) for row in rows if row["status"] != UNWANTED]
    bounds, volcanoes = _locate(record, grid) if grid is not None else locate_by_id(record.frame)
    dates = _page_dates(drawn, known.granules, metres, satellites)
    return FramePage(
        frame=record.frame.id,
        simulated=record.simulated,
        facts=_facts(record),
        written=utc_text(datetime.now(UTC)),
        version=__version__,
        bounds=bounds,
        approximate=grid is None,
        volcanoes=volcanoes,
        generation=known.generation.number if known.generation is not None else None,
        built=record.built,
        newest=max(one.secondary for one in stored).isoformat() if stored else "",
        listed=utc_text(known.listed_at or ""),
        pairs=tuple(_page_pair(row, known.granules) for row in rows if row["status"] != UNWANTED),
        dates=dates,
        owed=tuple(
            OwedProduct(item.unit, item.product, str(item.outcome), item.detail, kind)
            for kind, items in ((False, owed), (True, accepted))
            for item in items
        ),
        gaps=find_gaps(stored),
        unwanted=sum(row["status"] == UNWANTED for row in rows),
        changed=len(record.upstream.changed),
        gone=sum(row["status"] == GONE for row in rows),
        preliminary=sum(day.era5 == "preliminary" for day in dates),
        dem=tuple(_products(known.granules.get(DEM_KEY), ("height",))),
        credits=credited,
        pictures=pictures,
        shown=(pair.name if pair and pair.name in names else names[-1]) if names else "",
    )


def newest_pairs(pairs: Iterable[Pair], count: int) -> list[Pair]:
    """Return the pairs with the latest secondary dates, in order of time."""
    return sorted(pairs, key=lambda pair: (pair.secondary, pair.primary))[-count:]


def _begun_grid(granules: Mapping[str, Granule]) -> Grid | None:
    dem = granules.get(DEM_KEY)
    return dem.grid if isinstance(dem, DemGranule) else None


def _facts(record: FrameRecord) -> dict[str, Any]:
    """Return the attributes of the cube that a page shows, with the direction and the track."""
    attributes = record.contents.attributes if record.contents is not None else {}
    found = {name: attributes[name] for name in _FACTS if attributes.get(name) is not None}
    plain = {
        name: sanitize_text(value, 1000) if isinstance(value, str) else value for name, value in found.items()
    }
    direction = "ascending" if record.frame.direction == "A" else "descending"
    return {**plain, "direction": direction, "track": record.frame.track}


def _locate(record: FrameRecord, grid: Grid) -> tuple[_Box, tuple[PageVolcano, ...]]:
    return grid.bounds, _place_volcanoes(volcanoes_of_frame(record.frame, Bounds(*grid.bounds)))


def locate_by_id(frame: Frame) -> tuple[_Box | None, tuple[PageVolcano, ...]]:
    """Return the bounds of a frame and its volcanoes as far as its id and the registry say."""
    [found] = [one for one in find_frames(others=[frame]) if one.frame == frame]
    if math.isnan(found.latitude):
        return None, ()
    cones = (*found.volcanoes, *found.also_inside)
    return (*found.bounds,), _place_volcanoes(sorted(cones, key=lambda cone: cone.name))


def _place_volcanoes(cones: Iterable[VolcanoCone]) -> tuple[PageVolcano, ...]:
    return tuple(
        PageVolcano(one.name, one.latitude, one.longitude, one.elevation_m)
        for one in cones
        if one.latitude is not None and one.longitude is not None
    )


def _page_pair(row: Mapping[str, Any], granules: Mapping[str, Granule]) -> PagePair:
    """Return a pair of the page from its row of the table, with its provenance."""
    pair = Pair(row["primary"], row["secondary"])
    interferogram = granules.get(GranuleKey.of_pair(pair))
    stored = isinstance(interferogram, InterferogramGranule) and interferogram.is_complete
    return PagePair(
        name=row["pair"],
        primary=pair.primary.isoformat(),
        secondary=pair.secondary.isoformat(),
        days=row["temporal_baseline_days"],
        status=row["status"],
        baseline=_number(row["perpendicular_baseline_m"]),
        valid=_number(row["valid_fraction"]),
        alignment=interferogram.alignment
        if stored and isinstance(interferogram, InterferogramGranule)
        else "",
        annotated=row["annotated"],
        deformation=row["deformation"],
        phase=row["phase"],
        caption=row["caption"],
        confidence=_number(row["confidence"]),
        flags={name: int(row[name]) for name in FLAGS if row["annotated"] and row[name] > 0},
        products=(
            *_products(interferogram, ("phase", "coherence")),
            *_products(granules.get(GranuleKey.of_mask(pair)), ("preview",)),
        ),
    )


def _number(value: float) -> float | None:
    """Return a number for JSON, which knows no NaN."""
    return None if math.isnan(value) else round(float(value), 4)


def _page_dates(
    pairs: Collection[Pair],
    granules: Mapping[str, Granule],
    metres: Mapping[date, float],
    satellites: Mapping[str, str],
) -> tuple[PageDate, ...]:
    """Return all acquisition dates, with their provenance."""
    found = []
    for day in sorted({day for pair in pairs for day in pair.dates}):
        epoch = granules.get(GranuleKey.of_epoch(day))
        words = ""
        if isinstance(epoch, EpochGranule):
            words = _ERA5_WORDS.get(epoch.era5_expver or "", "unstated") if epoch.is_complete else "owed"
        baseline = metres.get(day)
        found.append(
            PageDate(
                day.isoformat(),
                None if baseline is None else _number(baseline),
                satellites.get(f"{day:%Y%m%d}", ""),
                words,
                tuple(_products(epoch, ("ERA5",))),
            )
        )
    return tuple(found)


def _products(granule: Granule | None, roles: Sequence[str]) -> list[PageProduct]:
    """Return the receipts of a granule, for people."""
    receipts = granule.receipts if granule is not None else ()
    return [_product(receipt, roles[min(number, len(roles) - 1)]) for number, receipt in enumerate(receipts)]


def _product(receipt: Receipt, role: str) -> PageProduct:
    digest = receipt.digest
    return PageProduct(
        role=role,
        product=sanitize_text(receipt.product),
        outcome=str(receipt.outcome),
        url=sanitize_text(receipt.url, 2000),
        digest=f"{digest.algorithm}:{sanitize_text(digest.value, 200)}" if digest is not None else "",
        fetched=utc_text(receipt.fetched or ""),
        modified=sanitize_text(receipt.last_modified or "", 100),
        detail=sanitize_text(receipt.detail),
        file=sanitize_text(receipt.file),
        size=receipt.size,
        notes=tuple(sanitize_text(note) for note in receipt.notes),
    )


def _shown_variables(pictures: FramePictures | None, rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return those of the variables to be credited that a page shows."""
    there = {
        "insar_difference": pictures is not None,
        "dem": pictures is not None and pictures.relief is not None,
        "era5_total_column_water_vapour": pictures is not None and bool(pictures.vapour),
        "annotated": any(row["annotated"] for row in rows),
    }
    return [name for name in _CREDITED if there[name]]


def _credits(cube: xr.Dataset, shown: Iterable[str]) -> tuple[str, ...]:
    """Return whom to credit for what a page shows, and under which licence, as the cube's attributes say."""
    lines = []
    for name in shown:
        about, called = cube[name].attrs if name in cube else {}, _CREDITED[name]
        source = about.get(DEM_SOURCE) if name == "dem" else None
        texts = [str(source or about.get("source", "")), str(about.get("license", ""))]
        if said := ", ".join(sanitize_text(text, 300) for text in texts if text):
            lines.append(f"{called}: {said}")
    if thanks := cube.attrs.get("acknowledgement"):
        lines.append(sanitize_text(thanks, 1000))
    return tuple(lines)
