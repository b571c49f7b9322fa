"""What a source of interferograms is, whoever processed them, and what it gives.

A second source (NISAR GUNW, another processor) is a class with the methods of :class:`InterferogramSource`,
an entry in :mod:`hephaestus_build.sources.selection`, and the form of its frames' ids in
:mod:`hephaestus_build.core.frames`. Nothing else knows an address, a file name or the parts of an id.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Protocol

import numpy as np

from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.provenance import Digest, PriorUse, Receipt
from hephaestus_build.download.client import SmallResponse


@dataclass(frozen=True)
class ListedPair:
    """A pair as a listing shows it.

    Attributes
    ----------
    pair : Pair
        The dates.
    modified : str or None
        The listing's Last-modified column, as written; it has no time zone.
    """

    pair: Pair
    modified: str | None = None


@dataclass(frozen=True)
class InterferogramListing:
    """The interferograms that the archive shows of a frame.

    Attributes
    ----------
    frame : Frame
        The frame.
    pairs : tuple of ListedPair
        Sorted; empty where the archive shows an empty folder.
    url : str
        The address that was asked.
    ignored : tuple of str
        Addresses on the page that are none of the frame's interferograms.
    """

    frame: Frame
    pairs: tuple[ListedPair, ...]
    url: str
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class FrameMetadata:
    """What the source says of a frame as a whole.

    Attributes
    ----------
    center_time : datetime.timedelta
        Acquisition time of the frame's centre, after midnight UTC.
    fields : dict of str
        Further values by name, such as the lines of LiCSAR's ``metadata.txt``; empty where they could not be
        fetched.
    receipt : Receipt
        How the request for them ended.
    """

    center_time: timedelta
    fields: Mapping[str, str]
    receipt: Receipt

    @property
    def is_simulated(self) -> bool:
        """Whether the source says that its data of the frame is simulated."""
        return self.fields.get("simulated", "").lower() == "true"


@dataclass(frozen=True)
class PreviewSize:
    """Size and colour mode of a preview PNG: what tells how its polygons map to the grid.

    Attributes
    ----------
    width, height : int
        Pixels.
    mode : str
        ``P`` (palette), ``RGBA``, ``RGB``, ``L`` or ``LA``.
    """

    width: int
    height: int
    mode: str


@dataclass(frozen=True)
class Raster:
    """One band and where it lies.

    Attributes
    ----------
    values : numpy.ndarray
        Shape ``grid.shape``, the first row in the north.
    grid : Grid
        Its pixels.
    notes : tuple of str
        What was done to the values beyond reading them; empty for an ordinary file.
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


@dataclass(frozen=True)
class SourceCredit:
    """Who made the interferograms, as a cube's attributes say.

    Attributes
    ----------
    source : str
        Name of the source, such as ``LiCSAR``.
    institution, license, acknowledgement : str
        Who to name, under which licence the products stand, and the sentence that it asks for.
    """

    source: str
    institution: str
    license: str
    acknowledgement: str


@dataclass(frozen=True)
class ProductHistory:
    """What earlier builds know of a frame's products.

    Attributes
    ----------
    prior_use : callable
        Returns how a product was used before, given its pair (None for the frame's own products) and its
        name.
    accepted_hashes : frozenset of Digest
        Hashes of products that are taken from the cache even where the archive no longer has them.
    """

    prior_use: Callable[[Pair | None, str], PriorUse] = lambda pair, name: PriorUse()
    accepted_hashes: frozenset[Digest] = frozenset()


class InterferogramSource(Protocol):
    """An archive of interferograms; safe to use from several threads.

    Every product ends in a receipt with one named outcome, whose product name begins with that of its pair;
    the content is None unless the receipt is good.

    Attributes
    ----------
    credit : SourceCredit
        Who made its products.
    address : str
        The archive's address, without passwords.
    """

    credit: SourceCredit
    address: str

    def listing(self, frame: Frame) -> InterferogramListing:
        """Return the interferograms that the archive shows of `frame`.

        Raises
        ------
        HephaestusError
            If the frame is absent or the archive does not answer.
        """

    def metadata(self, frame: Frame) -> FrameMetadata:
        """Return the metadata of `frame`; HephaestusError if its acquisition time is not known."""

    def dem(self, frame: Frame) -> tuple[Receipt, Raster | None]:
        """Return the heights of `frame`, float32, metres, NaN where there is none."""

    def phase(self, frame: Frame, pair: Pair, *, replaced: bool = False) -> tuple[Receipt, Raster | None]:
        """Return the wrapped phase of `pair`, float32, rad, exact 0 where there is none.

        Parameters
        ----------
        frame, pair : Frame, Pair
            Which.
        replaced : bool
            Whether the archive is known to have replaced the files of the pair.
        """

    def coherence(self, frame: Frame, pair: Pair, *, replaced: bool = False) -> tuple[Receipt, Raster | None]:
        """Return the coherence of `pair`, uint8, 255 for 1, 0 where there is none; see :meth:`phase`."""

    def preview(self, frame: Frame, pair: Pair) -> tuple[Receipt, PreviewSize | None]:
        """Return size and mode of the preview that an expert would see of `pair`."""

    def probe_product(self, frame: Frame, pair: Pair | None, name: str, url: str = "") -> SmallResponse:
        """Return what the archive says of a product now, without its content.

        Parameters
        ----------
        frame, pair : Frame, Pair or None
            Whose product.
        name : str
            The product's.
        url : str
            Where it was found earlier; a record may be anybody's, so it is asked only if it is the archive's.
        """

    def fetch_baselines(self, frame: Frame, path: Path) -> None:
        """Fetch the perpendicular baselines of `frame` into the file `path`, where the source has any.

        No cube is made of them: their absence is no error.
        """

    def kept_listing(self, frame: Frame) -> KeptListing | None:
        """Return the last listing that was read, without asking the archive; None where none is kept."""

    def kept_baselines(self, frame: Frame, path: Path) -> EpochBaselines | None:
        """Return the baselines that :meth:`fetch_baselines` wrote to `path` or left in the cache, or None."""

    def close(self) -> None:
        """Close all connections."""
