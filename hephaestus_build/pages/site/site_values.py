"""What a site knows of its frames: values without any I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from functools import cache

import msgspec

from hephaestus_build.core.volcanoes import VolcanoCone, fold_name, load_simulated_volcanoes, load_volcanoes
from hephaestus_build.pages.outlines import trace_outline
from hephaestus_build.pages.page_data import FramePage, PagePair, PageVolcano
from hephaestus_build.pages.pictures import decode_codes

#: Pairs of a frame that a feed has, and those of them, the newest, that have a picture of their own.
FEED_PAIRS, PICTURED_PAIRS = 12, 3


class SitePair(msgspec.Struct, frozen=True, kw_only=True):
    """A pair that is new.

    Attributes
    ----------
    name, primary, secondary : str
        ``yyyymmdd_yyyymmdd``, and its dates in ISO 8601.
    arrived : str
        When its phase was fetched, UTC, ISO 8601; of imported ones, when the cube was published.
    annotated, deformation : bool
        Whether an expert looked at it, and outlined deformation.
    """

    name: str
    primary: str
    secondary: str
    arrived: str
    annotated: bool = False
    deformation: bool = False


class SiteVolcano(msgspec.Struct, frozen=True, kw_only=True):
    """A volcano in a frame; degrees and metres."""

    name: str
    latitude: float
    longitude: float
    elevation: int | None = None

    @property
    def slug(self) -> str:
        """Name of its page: letters, digits and hyphens, the same in every site."""
        return _slugs().get((self.name, self.latitude, self.longitude)) or _slug(self.name)


class FrameDigest(msgspec.Struct, frozen=True, kw_only=True):
    """What a site keeps of a frame's page, so that the cube need not be opened for the other pages.

    Attributes
    ----------
    bounds : tuple of float or None
        West, south, east and north edge, degrees; None where they are not known.
    approximate : bool
        Whether these follow from the frame's id alone.
    volcanoes : tuple of SiteVolcano
        Those inside.
    pairs : tuple of SitePair
        Those that arrived last: by the day of their arrival, then by date, the latest first.
    arrived : int
        Number of pairs that arrived within a day of the last one.
    pictured : tuple of str
        Names of the newest pairs with a picture of their own, the newest first.
    grid : tuple of float or None
        West and north edge, width and height of these pictures, degrees.
    shape : tuple of int or None
        Their rows and columns.
    outlines : dict of str to str
        Outlines of the masks of these pairs, by pair: paths of an SVG whose units are pixels.
    """

    bounds: tuple[float, float, float, float] | None = None
    approximate: bool = False
    volcanoes: tuple[SiteVolcano, ...] = ()
    pairs: tuple[SitePair, ...] = ()
    arrived: int = 0
    pictured: tuple[str, ...] = ()
    grid: tuple[float, float, float, float] | None = None
    shape: tuple[int, int] | None = None
    outlines: dict[str, str] = {}


class SiteFrame(msgspec.Struct, frozen=True, kw_only=True):
    """A frame of the site: its digest, and its status.

    Attributes
    ----------
    frame, direction : str
        Its id; ``ascending`` or ``descending``.
    track : int
        Relative orbit.
    simulated : bool
        Whether its data is simulated.
    digest : FrameDigest
        From its page.
    page : bool
        Whether it has a page.
    generation : int or None
        The published generation.
    built, newest : str
        When that was published; day of the newest interferogram. ISO 8601; empty where there is none.
    pairs, annotated, owed, accepted, preliminary : int
        Numbers, as in ``status``.
    problem : str
        Why there is no cube or no page, if so.
    """

    frame: str
    direction: str
    track: int
    simulated: bool
    digest: FrameDigest
    page: bool = False
    generation: int | None = None
    built: str = ""
    newest: str = ""
    pairs: int = 0
    annotated: int = 0
    owed: int = 0
    accepted: int = 0
    preliminary: int = 0
    problem: str = ""

    def latency(self, today: date) -> int | None:
        """Return the days since the newest acquisition."""
        return (today - date.fromisoformat(self.newest)).days if self.newest else None


def digest_page(page: FramePage) -> FrameDigest:
    """Return what a site keeps of a frame's page."""
    stored = [pair for pair in page.pairs if pair.status in ("stored", "gone")]
    arrived = sorted(
        ((_arrival(pair, page.built), pair.secondary, pair) for pair in stored),
        key=lambda item: (item[0][:10], item[1], item[2].primary),
        reverse=True,
    )
    pictures = page.pictures
    newest = sorted(
        (pair for pair in stored if pictures and pair.name in pictures.pairs),
        key=lambda pair: (pair.secondary, pair.primary),
        reverse=True,
    )
    grid = pictures.grid if pictures else None
    return FrameDigest(
        bounds=page.bounds,
        approximate=page.approximate,
        volcanoes=site_volcanoes(page.volcanoes),
        pairs=tuple(
            SitePair(
                name=pair.name,
                primary=pair.primary,
                secondary=pair.secondary,
                arrived=moment,
                annotated=pair.annotated,
                deformation=pair.deformation,
            )
            for moment, _, pair in arrived[:FEED_PAIRS]
        ),
        arrived=sum(_within_a_day(moment, max(one[0] for one in arrived)) for moment, *_ in arrived),
        pictured=tuple(pair.name for pair in newest[:PICTURED_PAIRS]),
        grid=(grid.west, grid.north, grid.width * grid.dx, grid.height * grid.dy) if grid else None,
        shape=(grid.height, grid.width) if grid else None,
        outlines={
            pair.name: trace_outline(decode_codes(mask.png))
            for pair in newest[:PICTURED_PAIRS]
            if pictures and (mask := pictures.pairs[pair.name].mask) is not None
        },
    )


def site_volcanoes(volcanoes: Iterable[PageVolcano]) -> tuple[SiteVolcano, ...]:
    """Return the volcanoes of a page as those of a site."""
    return tuple(
        SiteVolcano(name=one.name, latitude=one.latitude, longitude=one.longitude, elevation=one.elevation)
        for one in volcanoes
    )


def _arrival(pair: PagePair, built: str) -> str:
    """Return when the phase of a pair was fetched, or the cube was published where that is not known."""
    return next((one.fetched for one in pair.products if one.role == "phase" and one.fetched), built)


def _within_a_day(moment: str, last: str) -> bool:
    if not (moment and last):
        return moment == last
    return datetime.fromisoformat(last) - datetime.fromisoformat(moment) <= timedelta(days=1)


def _slug(name: str) -> str:
    return fold_name(name).replace(" ", "-")[:80] or "volcano"


@cache
def _slugs() -> dict[tuple[str, float | None, float | None], str]:
    return name_pages((*load_volcanoes(), *load_simulated_volcanoes()))


def name_pages(cones: tuple[VolcanoCone, ...]) -> dict[tuple[str, float | None, float | None], str]:
    """Return the name of each volcano's page, by name, latitude and longitude.

    Names are not unique: those of one name are told apart by their place in whole degrees, then by a number.
    """
    shared = Counter(_slug(cone.name) for cone in cones if cone.catalogued)
    found: dict[tuple[str, float | None, float | None], str] = {}
    taken: set[str] = set()
    for cone in cones:
        if cone.latitude is None or cone.longitude is None:
            continue
        slug = _slug(cone.name)
        if shared[slug] > 1:
            north, east = "sn"[cone.latitude >= 0], "we"[cone.longitude >= 0]
            slug = f"{slug}-{abs(cone.latitude):.0f}{north}-{abs(cone.longitude):.0f}{east}"
        unique, number = slug, 2
        while unique in taken:
            unique, number = f"{slug}-{number}", number + 1
        taken.add(unique)
        found[cone.name, cone.latitude, cone.longitude] = unique
    return found
