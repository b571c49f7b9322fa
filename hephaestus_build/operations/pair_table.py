"""Table of a frame's pairs: dates, baselines, status and annotation.

Read from the frame's cube and the last kept listing; the archive is asked only on request.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hephaestus_build.core.accepted_absences import AcceptedAbsences
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.settings import PairChoice, Settings
from hephaestus_build.cube.discovery import cubes_dir_for
from hephaestus_build.cube.granules import Granule, InterferogramGranule, MaskGranule
from hephaestus_build.cube.inventory import CubeInventory
from hephaestus_build.cube.storage.generations import FrameStore, Generation
from hephaestus_build.pipeline.missing_products import find_missing_products, partition_accepted
from hephaestus_build.pipeline.plan import BuildRequest, select_pairs
from hephaestus_build.pipeline.upstream_changes import read_upstream_state
from hephaestus_build.sources.annotations.archive import find_annotations
from hephaestus_build.sources.annotations.record import FLAGS, Annotation
from hephaestus_build.sources.interferograms import EpochBaselines
from hephaestus_build.sources.selection import open_interferogram_source

if TYPE_CHECKING:
    import pandas as pd

#: Status of a pair.
STORED, OWED, ABSENT, GONE, UNWANTED = PAIR_STATES = ("stored", "owed", "absent", "gone", "unwanted")
#: Columns of the annotation, with their values for pairs that are not annotated.
LABEL_COLUMNS: Mapping[str, Any] = {
    "annotated": False,
    "deformation": False,
    "phase": "",
    **dict.fromkeys(FLAGS, -1),
    "confidence": float("nan"),
    "caption": "",
    "unique_id": -1,
}


@dataclass(frozen=True)
class KnownPairs:
    """Everything known about a frame's pairs.

    Attributes
    ----------
    frame : Frame
        The frame.
    granules : dict of str to Granule
        Granules of the published cube, by key; empty without a cube.
    listed : collection of Pair or None
        Pairs of the last kept listing; None without one.
    delisted : collection of str
        Names of stored pairs that were gone from the archive at the last build; used without a listing.
    annotations : dict of Pair to Annotation
        The available annotations.
    baselines : EpochBaselines or None
        None if the archive has none, or they have not been fetched.
    choice : str
        ``annotated``, ``all`` or ``auto``: the listed pairs that a build selects.
    accept : mapping
        The setting ``accept``.
    generation : Generation or None
        The published generation; None without one.
    listed_at : str or None
        Time of the last kept listing.
    """

    frame: Frame
    granules: Mapping[str, Granule]
    listed: Collection[Pair] | None
    delisted: Collection[str]
    annotations: Mapping[Pair, Annotation]
    baselines: EpochBaselines | None
    choice: PairChoice
    accept: AcceptedAbsences
    generation: Generation | None = None
    listed_at: str | None = None


def make_pair_rows(known: KnownPairs) -> list[dict[str, Any]]:
    """Return one row for each stored, listed or annotated pair, in date order.

    Parameters
    ----------
    known : KnownPairs
        Content of the rows.

    Returns
    -------
    list of dict
        Keys: ``pair``, ``primary`` and ``secondary`` (:class:`datetime.date`), ``temporal_baseline_days``,
        ``perpendicular_baseline_m`` and ``valid_fraction`` (NaN where not known), ``status``, and those of
        :data:`LABEL_COLUMNS`.
    """
    stored = {
        granule.pair: granule
        for granule in known.granules.values()
        if isinstance(granule, InterferogramGranule)
    }
    masks = {granule.pair: granule for granule in known.granules.values() if isinstance(granule, MaskGranule)}
    listed = frozenset(known.listed or ())
    selection = select_pairs(
        BuildRequest(known.frame, known.choice), listed, {*known.annotations, *masks.keys()}
    )
    wanted = frozenset(selection.wanted)
    # without a listing it is unknown which annotated pairs are absent from the archive
    unlisted = selection.unlisted if known.listed is not None else ()

    def status(pair: Pair) -> str:
        granule = stored.get(pair)
        if granule is not None and granule.is_complete:
            gone = pair.name in known.delisted if known.listed is None else pair not in listed
            return GONE if gone else STORED
        if granule is not None and granule.needs_retry and (known.listed is None or pair in listed):
            return ABSENT if _is_accepted(granule, known) else OWED
        if pair in listed:
            return OWED if pair in wanted else UNWANTED
        return ABSENT

    rows = []
    for pair in sorted({*stored, *masks, *listed, *unlisted}):
        granule = stored.get(pair)
        rows.append(
            {
                "pair": pair.name,
                "primary": pair.primary,
                "secondary": pair.secondary,
                "temporal_baseline_days": (pair.secondary - pair.primary).days,
                "perpendicular_baseline_m": (
                    round(known.baselines.of_pair(pair), 4) if known.baselines else float("nan")
                ),
                "status": status(pair),
                "valid_fraction": granule.valid_fraction
                if granule is not None and granule.is_complete
                else float("nan"),
                **LABEL_COLUMNS,
                **_labels(masks.get(pair), known.annotations.get(pair)),
            }
        )
    return rows


def _is_accepted(granule: Granule, known: KnownPairs) -> bool:
    """Return whether the setting ``accept`` allows all missing products of a pair."""
    owed, _ = partition_accepted(find_missing_products({granule.key: granule}), known.frame, known.accept)
    return not owed


def _labels(mask: Granule | None, annotation: Annotation | None) -> dict[str, Any]:
    """Return the annotation of a pair: from the cube, else from the annotation archive."""
    if mask is not None:
        outlined = bool(mask.objects) or "preview" in mask.facts  # a polygon off the grid has no mask
        written = mask.facts["annotation"]
    elif annotation is not None:
        outlined, written = bool(annotation.polygons), vars(annotation)
    else:
        return {}
    labels = {name: written[name] for name in LABEL_COLUMNS if name in written}
    texts = {name: sanitize_text(value, 1000) for name, value in labels.items() if isinstance(value, str)}
    return {"annotated": True, "deformation": outlined, **labels, **texts}


def kept_baselines(frame: Frame, settings: Settings) -> EpochBaselines | None:
    """Return the perpendicular baselines of a frame that were fetched last; None without any."""
    settings = settings.for_frame(frame)
    frame_store = FrameStore(cubes_dir_for(settings, frame), frame)
    with closing(open_interferogram_source(settings, frame)) as source:
        return source.kept_baselines(frame, frame_store.baselines_file)


def read_known_pairs(frame: Frame, settings: Settings, *, upstream: bool = False) -> KnownPairs:
    """Return what is known of a frame's pairs, from its cube and the last kept listing.

    Parameters
    ----------
    frame, settings, upstream
        See :func:`pair_table`.

    Raises
    ------
    HephaestusError
        If there is neither a cube nor a listing, or the archive is asked and does not answer.
    """
    settings = settings.for_frame(frame)
    frame_store = FrameStore(cubes_dir_for(settings, frame), frame)
    if upstream:
        settings.check_frame_available(frame)
    with closing(open_interferogram_source(settings, frame)) as source:
        if upstream:
            source.listing(frame)
            source.fetch_baselines(frame, frame_store.baselines_file)
        listing = source.kept_listing(frame)
        baselines = source.kept_baselines(frame, frame_store.baselines_file)
    current = frame_store.published_generation()
    if current is None and listing is None:
        option = " --simulated" if settings.is_simulated and not frame.is_simulated else ""
        raise HephaestusError(
            f"{frame}: there is no cube in {settings.cubes_dir} and no listing was kept; "
            f"`hephaestus pairs {frame}{option} --upstream` asks the archive"
        )
    contents = current.read_inventory() if current is not None else None
    return KnownPairs(
        frame,
        contents.granules if contents is not None else {},
        listing.pairs.keys() if listing is not None else None,
        read_upstream_state(frame_store).gone,
        find_annotations(settings, frame, needed=upstream, offline=not upstream).for_frame(frame),
        baselines,
        _choice(settings, contents),
        settings.accept,
        current,
        listing.fetched if listing is not None else None,
    )


def pair_table(frame: Frame, settings: Settings, *, upstream: bool = False) -> pd.DataFrame:
    """Return the pairs of a frame's cube and of the last kept listing.

    Parameters
    ----------
    frame : Frame
        The frame.
    settings : Settings
        Folders of cubes and cache, and the archive.
    upstream : bool
        Whether to request the listing and baselines from the archive first.

    Returns
    -------
    pandas.DataFrame
        The columns of :func:`make_pair_rows`, the pair's name as index, in date order. Its ``attrs`` say
        what it was made of: ``frame``, ``generation`` of the cube and ``listed``, the time of the listing
        (UTC); None where there is none.

    Raises
    ------
    HephaestusError
        If there is neither a cube nor a listing, or the archive is asked and does not answer.
    """
    import pandas as pd

    known = read_known_pairs(frame, settings, upstream=upstream)
    columns = ["pair", "primary", "secondary", "temporal_baseline_days", "perpendicular_baseline_m"]
    rows = make_pair_rows(known)
    table = pd.DataFrame(rows, columns=[*columns, "status", "valid_fraction", *LABEL_COLUMNS])
    for name in ("primary", "secondary"):
        table[name] = pd.to_datetime(table[name])
    table.attrs = {
        "frame": frame.id,
        "simulated": settings.for_frame(frame).is_simulated,
        "generation": known.generation.number if known.generation is not None else None,
        "listed": known.listed_at,
    }
    return table.set_index("pair")


def _choice(settings: Settings, contents: CubeInventory | None) -> PairChoice:
    """Return which pairs a build selects: from the settings, else as in the last build."""
    if settings.pairs == "auto" and contents is not None:
        built = contents.attributes.get("build_settings")
        if isinstance(built, dict) and built.get("pairs") in ("annotated", "all"):
            return built["pairs"]
    return settings.pairs
