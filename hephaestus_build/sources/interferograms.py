"""Interface of an interferogram source, and the value types it returns.

To add a second source (NISAR GUNW, another processor), write a class with the methods of
:class:`InterferogramSource`, register it in :mod:`hephaestus_build.sources.selection`, and add the format of
its frame ids to :mod:`hephaestus_build.core.frames`. No other module depends on addresses, file names or
parts of an id.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.provenance import Digest, PriorUse, Receipt
from hephaestus_build.download.small_response import SmallResponse


@dataclass(frozen=True)
class ListedPair:
    """One pair of a listing.

    Attributes
    ----------
    pair : Pair
        The dates.
    modified : str or None
        The listing's Last-modified column, as written, without a time zone; None if it has none.
    """

    pair: Pair
    modified: str | None = None


@dataclass(frozen=True)
class InterferogramListing:
    """The interferograms that the archive lists for a frame.

    Attributes
    ----------
    frame : Frame
        The frame.
    pairs : tuple of ListedPair
        Sorted; empty if the archive lists an empty folder.
    url : str
        The address that was requested.
    ignored : tuple of str
        Links on the page that are not interferograms of the frame.
    """

    frame: Frame
    pairs: tuple[ListedPair, ...]
    url: str
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class AcquisitionGeometry:
    """Geometry of a frame's acquisitions; None where the source does not state a value.

    Attributes
    ----------
    wavelength_m : float or None
        Radar wavelength, m.
    heading_deg : float or None
        Direction of flight, degrees clockwise from north.
    incidence_deg : float or None
        Mean incidence angle, degrees from the vertical.
    look_direction : str or None
        ``right`` or ``left`` of the direction of flight.
    """

    wavelength_m: float | None = None
    heading_deg: float | None = None
    incidence_deg: float | None = None
    look_direction: Literal["right", "left"] | None = None


@dataclass(frozen=True)
class PhaseConvention:
    """Sign of the phase of a source's interferograms.

    Attributes
    ----------
    positive : str
        ``away`` if positive phase is motion of the ground away from the satellite, from the primary to the
        secondary date; ``towards`` if it is motion towards it.
    evidence : str
        Where that is known from.
    """

    positive: Literal["away", "towards"]
    evidence: str

    @property
    def description(self) -> str:
        """The convention in words, with a formula in terms of a cube's attributes."""
        longer, subsides, sign = (
            ("longer", "away from it, such as subsidence", "-")
            if self.positive == "away"
            else ("shorter", "towards it, such as uplift", "")
        )
        return (
            f"positive phase: the path to the satellite is {longer} on the secondary date than on the "
            f"primary date, by motion of the ground {subsides}, or by the atmosphere; displacement towards "
            f"the satellite in m = {sign}phase * radar_wavelength_m / (4 pi). Evidence: {self.evidence}"
        )


def unknown_satellite(day: date) -> str:  # noqa: ARG001 -- the form of FrameMetadata.satellite
    """Return an empty text: the source does not know which satellite made an acquisition."""
    return ""


@dataclass(frozen=True)
class FrameMetadata:
    """Metadata of a frame.

    Attributes
    ----------
    center_time : datetime.timedelta or None
        Acquisition time of the frame's centre, after midnight UTC; None if it is not known.
    fields : dict of str
        Further values by name, such as the lines of LiCSAR's ``metadata.txt``; empty if they could not be
        downloaded.
    receipt : Receipt
        Receipt of the request for `fields`.
    geometry : AcquisitionGeometry
        Acquisition geometry, as far as the source states it.
    dem_source : str
        Where the heights come from, in the source's words; empty if it does not state it.
    satellite : callable
        Returns the satellite of an acquisition date, empty where it is not certain.
    unknown_time : Receipt or None
        Why the acquisition time is not known, and what to do; None if it is known.
    """

    center_time: timedelta | None
    fields: Mapping[str, str]
    receipt: Receipt
    geometry: AcquisitionGeometry = AcquisitionGeometry()
    dem_source: str = ""
    satellite: Callable[[date], str] = unknown_satellite
    unknown_time: Receipt | None = None

    @property
    def is_simulated(self) -> bool:
        """Whether the metadata marks the frame's data as simulated."""
        return self.fields.get("simulated", "").lower() == "true"


@dataclass(frozen=True)
class PreviewSize:
    """Size and colour mode of a preview, which determine how its polygons map to the grid.

    Attributes
    ----------
    width, height : int
        Pixels.
    mode : str
        Pillow's name of the colour mode: ``P`` (palette), ``RGBA``, ``RGB``, ``L`` or ``LA``.
    """

    width: int
    height: int
    mode: str


@dataclass(frozen=True)
class Raster:
    """One georeferenced band.

    Attributes
    ----------
    values : numpy.ndarray
        Shape ``grid.shape``, the first row in the north.
    grid : Grid
        Grid of the pixels.
    notes : tuple of str
        Changes to the values after reading; empty for an ordinary file.
    """

    values: np.ndarray
    grid: Grid
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, repr=False)
class KeptListing:
    """The last listing that was read of a frame.

    Attributes
    ----------
    pairs : dict of Pair to str or None
        When the listing said that each pair was last changed, in order of dates.
    fetched : str
        When it was read, UTC, ISO 8601.
    url : str
        The address that answered.
    """

    pairs: Mapping[Pair, str | None]
    fetched: str
    url: str

    def __repr__(self) -> str:
        return f"<KeptListing of {len(self.pairs)} pairs, {self.fetched}>"


@dataclass(frozen=True, repr=False)
class EpochBaselines:
    """Perpendicular baselines of a frame's acquisitions, relative to one of them.

    Attributes
    ----------
    reference : datetime.date
        The acquisition that the others are compared with.
    metres : dict of datetime.date to float
        Perpendicular baseline of each acquisition to the reference, m; 0 for the reference itself.
    is_simulated : bool
        Whether the source says that they are simulated.
    """

    reference: date
    metres: Mapping[date, float] = field(default_factory=dict)
    is_simulated: bool = False

    def __repr__(self) -> str:
        return f"<EpochBaselines of {len(self.metres)} acquisitions to {self.reference}>"

    def of_pair(self, pair: Pair) -> float:
        """Return the perpendicular baseline of a pair, m: the secondary's minus the primary's.

        NaN where one of the acquisitions is missing.

        Examples
        --------
        >>> days = date(2021, 1, 3), date(2021, 1, 15)
        >>> EpochBaselines(date(2020, 12, 10), dict(zip(days, (40.0, -25.5)))).of_pair(Pair(*days))
        -65.5
        """
        primary, secondary = (self.metres.get(day, math.nan) for day in pair.dates)
        return secondary - primary


#: What a product belongs to: a pair, an acquisition date, or (None) the frame.
ProductPlace = Pair | date | None


@dataclass(frozen=True)
class SourceCredit:
    """Who made the interferograms, as a cube's attributes say.

    Attributes
    ----------
    source : str
        Name of the source, such as ``LiCSAR``.
    institution, license, acknowledgement : str
        Who to name, under which licence the products stand, and the sentence that it asks for.
    processor : str
        What formed the interferograms; empty if the source does not say it.
    phase : PhaseConvention or None
        Sign of their phase; None if it is not known.
    """

    source: str
    institution: str
    license: str
    acknowledgement: str
    processor: str = ""
    phase: PhaseConvention | None = None


@dataclass(frozen=True)
class ProductHistory:
    """What earlier builds know of a frame's products.

    Attributes
    ----------
    prior_use : callable
        Returns how a product was used before, given its pair, its date or (None) its frame, and its name.
    accepted_hashes : frozenset of Digest
        Hashes of products that are taken from the cache without asking the archive.
    """

    prior_use: Callable[[ProductPlace, str], PriorUse] = lambda place, name: PriorUse()
    accepted_hashes: frozenset[Digest] = frozenset()


class InterferogramSource(Protocol):
    """Interface of an archive of interferograms; implementations are thread-safe.

    Every request for a product returns a receipt with one outcome, and content that is None unless the
    outcome is good. The receipt's product name begins with the name of the pair.

    Attributes
    ----------
    credit : SourceCredit
        Who made its products.
    address : str
        The archive's address, without passwords.
    """

    credit: SourceCredit
    address: str

    def tracks(self) -> tuple[int, ...]:
        """Return the relative orbits that the archive lists, sorted.

        Raises
        ------
        HephaestusError
            If the archive does not answer with a listing.
        """

    def frames(self, track: int) -> tuple[Frame, ...]:
        """Return the frames that the archive has on a relative orbit, sorted.

        Raises
        ------
        HephaestusError
            If the archive does not answer, or has no such track.
        """

    def listing(self, frame: Frame) -> InterferogramListing:
        """Return the interferograms that the archive lists for `frame`.

        Raises
        ------
        HephaestusError
            If the frame is absent or the archive does not answer.
        """

    def metadata(self, frame: Frame) -> FrameMetadata:
        """Return the metadata of `frame`, as far as they can be had.

        The acquisition time is that of the setting ``center_time``, else the archive's; if neither states it,
        the metadata say why, and the atmosphere is owed.
        """

    def dem(self, frame: Frame) -> tuple[Receipt, Raster | None]:
        """Return the heights of `frame`: float32, metres, NaN for no data."""

    def phase(self, frame: Frame, pair: Pair, *, replaced: bool = False) -> tuple[Receipt, Raster | None]:
        """Return the wrapped phase of `pair`: float32, rad, exactly 0 for no data.

        Parameters
        ----------
        frame, pair : Frame, Pair
            The interferogram.
        replaced : bool
            Whether the archive is known to have replaced the files of the pair.
        """

    def coherence(self, frame: Frame, pair: Pair, *, replaced: bool = False) -> tuple[Receipt, Raster | None]:
        """Return the coherence of `pair`: uint8, 255 for 1, 0 for no data; see :meth:`phase`."""

    def preview(self, frame: Frame, pair: Pair) -> tuple[Receipt, PreviewSize | None]:
        """Return size and colour mode of the preview of `pair`."""

    def optional_raster(
        self, frame: Frame, variable: str, place: ProductPlace, *, replaced: bool = False
    ) -> tuple[Receipt, Raster | None]:
        """Return the raster of an optional variable; absent if the source has none of the kind.

        Parameters
        ----------
        frame : Frame
            The frame.
        variable : str
            One of :data:`~hephaestus_build.core.registry.OPTIONAL_VARIABLES`. Its values and its
            fill are as ``schemas/cube.json`` describes them.
        place : Pair, datetime.date or None
            The pair or the acquisition date; None for a variable of the frame.
        replaced : bool
            Whether the archive is known to have replaced the file.
        """

    def probe_product(self, frame: Frame, place: ProductPlace, name: str, url: str = "") -> SmallResponse:
        """Return the archive's present headers of a product, without its content.

        Parameters
        ----------
        frame, place : Frame, and Pair, datetime.date or None
            Frame of the product, and its pair or date; None for products of the frame.
        name : str
            Name of the product.
        url : str
            Address of an earlier download, requested only if it belongs to the archive, since records are not
            trusted.
        """

    def fetch_baselines(self, frame: Frame, path: Path) -> tuple[Receipt, EpochBaselines | None]:
        """Fetch the perpendicular baselines of `frame` into the file `path`, and return them.

        Their absence is not an error.
        """

    def kept_listing(self, frame: Frame) -> KeptListing | None:
        """Return the last listing that was read, without asking the archive; None where none is kept."""

    def kept_baselines(self, frame: Frame, path: Path) -> EpochBaselines | None:
        """Return the baselines that :meth:`fetch_baselines` wrote to `path` or left in the cache, or None."""

    def close(self) -> None:
        """Close all connections."""
