"""The data of a frame's page: values that become JSON, without any I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hephaestus_build.pages.pictures import Picture


@dataclass(frozen=True)
class PageProduct:
    """One product that a part of the page was made of, from its receipt.

    Attributes
    ----------
    role : str
        What it is: ``phase``, ``coherence``, ``preview``, ``ERA5``, ``height``.
    product : str
        Its name.
    outcome : str
        Outcome of the request.
    url, digest, fetched, modified, detail, file : str
        Address, hash with its algorithm, time of the download, Last-Modified, reason of a failure, and where
        an imported product was read; empty where not known.
    size : int or None
        Size in bytes.
    notes : tuple of str
        What was done to its content.
    """

    role: str
    product: str
    outcome: str
    url: str = ""
    digest: str = ""
    fetched: str = ""
    modified: str = ""
    detail: str = ""
    file: str = ""
    size: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PageDate:
    """An acquisition date.

    Attributes
    ----------
    day : str
        ISO 8601.
    baseline : float or None
        Perpendicular baseline to the frame's reference acquisition, m.
    satellite : str
        Empty where not known.
    era5 : str
        Version of ERA5 in words: final, preliminary, owed, or empty where nothing was requested.
    products : tuple of PageProduct
        ERA5 of this date.
    """

    day: str
    baseline: float | None = None
    satellite: str = ""
    era5: str = ""
    products: tuple[PageProduct, ...] = ()


@dataclass(frozen=True)
class PagePair:
    """A pair of the frame, with or without pictures.

    Attributes
    ----------
    name, primary, secondary : str
        ``yyyymmdd_yyyymmdd``, and its dates in ISO 8601.
    days : int
        Temporal baseline.
    status : str
        One of :data:`hephaestus_build.operations.pair_table.PAIR_STATES`.
    baseline, valid : float or None
        Perpendicular baseline in m; fraction of the frame with data.
    alignment : str
        How its rasters were brought to the grid; empty where nothing is stored.
    annotated, deformation : bool
        Whether an expert looked at it, and outlined deformation.
    phase, caption : str
        What the expert wrote.
    confidence : float or None
        The expert's confidence.
    flags : dict of str to int
        The expert's remarks, such as ``atmospheric_fringes``, that are not 0.
    products : tuple of PageProduct
        Phase, coherence and preview.
    """

    name: str
    primary: str
    secondary: str
    days: int
    status: str
    baseline: float | None = None
    valid: float | None = None
    alignment: str = ""
    annotated: bool = False
    deformation: bool = False
    phase: str = ""
    caption: str = ""
    confidence: float | None = None
    flags: Mapping[str, int] = field(default_factory=dict)
    products: tuple[PageProduct, ...] = ()


@dataclass(frozen=True)
class PageVolcano:
    """A volcano of the frame; degrees and metres."""

    name: str
    latitude: float
    longitude: float
    elevation: int | None = None


@dataclass(frozen=True)
class OwedProduct:
    """A product that the cube lacks.

    Attributes
    ----------
    unit, product, outcome, reason : str
        What it belongs to, its name, the outcome of the last request, and why.
    accepted : bool
        Whether the setting ``accept`` allows its absence.
    """

    unit: str
    product: str
    outcome: str
    reason: str
    accepted: bool = False


@dataclass(frozen=True)
class AcquisitionGap:
    """A time between two acquisitions that is long, or that no stored pair spans; dates in ISO 8601."""

    start: str
    end: str
    days: int
    spanned: bool


@dataclass(frozen=True)
class PageGrid:
    """The grid of the pictures: outer edges and pixel size in degrees.

    Attributes
    ----------
    width, height : int
        Columns and rows.
    west, north, dx, dy : float
        Outer corner of the first pixel, and the size of one.
    step : int
        Pixels of the frame's grid for each, along either axis.
    overview_step : int
        Pixels of the overview for each: 1 where the pictures are the overview itself.
    """

    width: int
    height: int
    west: float
    north: float
    dx: float
    dy: float
    step: int
    overview_step: int


@dataclass(frozen=True)
class PairPictures:
    """The pictures of one pair; None where there is none."""

    phase: Picture
    coherence: Picture
    mask: Picture | None = None
    probability: Picture | None = None


@dataclass(frozen=True)
class FramePictures:
    """All pictures of a page, on one grid but the water vapour.

    Attributes
    ----------
    grid : PageGrid
        Grid of phase, coherence, mask, probability, relief and heights.
    pairs : dict of str to PairPictures
        By the name of the pair, the oldest first.
    vapour : dict of str to Picture
        Water vapour by day, over the same area on a coarser grid.
    vapour_range : tuple of float or None
        Water vapour of the first and the last colour, kg m-2.
    relief, heights : Picture or None
        The shaded relief, and the heights in metres that it shows.
    height_range : tuple of float or None
        Heights of the first and the last colour of the relief, m.
    relief_legend : tuple of int
        Codes of these two colours, for a legend.
    model : dict of str to str
        About the model of the probabilities; empty without one.
    """

    grid: PageGrid
    pairs: Mapping[str, PairPictures]
    vapour: Mapping[str, Picture] = field(default_factory=dict)
    vapour_range: tuple[float, float] | None = None
    relief: Picture | None = None
    heights: Picture | None = None
    height_range: tuple[float, float] | None = None
    relief_legend: tuple[int, int] = (0, 0)
    model: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FramePage:
    """Everything that the page of a frame shows.

    Attributes
    ----------
    frame : str
        Its id.
    simulated : bool
        Whether the data is simulated.
    facts : dict
        Of the frame: direction, volcanoes' region, geometry; text or numbers by name.
    written : str
        When the page was written, UTC, ISO 8601.
    version : str
        Version of this program.
    bounds : tuple of float or None
        West, south, east and north edge of the frame's grid, degrees; None while the grid is not known.
    approximate : bool
        Whether these follow from the frame's id alone.
    volcanoes : tuple of PageVolcano
        Those in the frame.
    generation : int or None
        The published generation; None without one.
    built, newest, listed : str
        When it was published; day of the newest interferogram; when the archive's listing was last read.
        Empty where there is none.
    pairs, dates, owed, gaps
        What their types say, in order of time.
    unwanted : int
        Number of listed pairs that builds leave out.
    changed, gone : int
        Numbers of products that changed in the archive, and of stored pairs that it no longer lists.
    preliminary : int
        Number of dates with preliminary ERA5.
    dem : tuple of PageProduct
        The heights.
    credits : tuple of str
        Whom to credit for what is shown, and under which licence.
    pictures : FramePictures or None
        None where no interferogram is stored.
    shown : str
        Name of the pair that is shown first; empty without pictures.
    """

    frame: str
    simulated: bool
    facts: Mapping[str, Any]
    written: str
    version: str
    bounds: tuple[float, float, float, float] | None = None
    approximate: bool = False
    volcanoes: tuple[PageVolcano, ...] = ()
    generation: int | None = None
    built: str = ""
    newest: str = ""
    listed: str = ""
    pairs: tuple[PagePair, ...] = ()
    dates: tuple[PageDate, ...] = ()
    owed: tuple[OwedProduct, ...] = ()
    gaps: tuple[AcquisitionGap, ...] = ()
    unwanted: int = 0
    changed: int = 0
    gone: int = 0
    preliminary: int = 0
    dem: tuple[PageProduct, ...] = ()
    credits: tuple[str, ...] = ()
    pictures: FramePictures | None = None
    shown: str = ""
