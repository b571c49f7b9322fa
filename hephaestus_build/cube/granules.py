"""Granules, the smallest parts of a cube that are built: pairs, masks, epochs, the DEM, and others.

A cube is a pure function of its granules: the axes, the key of every stored object and the tables of flags
are derived from them. Therefore a build can be interrupted at any point and resumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import date
from functools import cached_property
from typing import Any, ClassVar, Literal, cast

import msgspec

from hephaestus_build.core.frames import Pair, parse_day
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.provenance import PUBLISHED, Outcome, Receipt

#: pair: phase and coherence of a pair; mask: an annotation and its masks; epoch: ERA5 at a date; dem: DEM;
#: overview: small images of a pair; optional: an optional variable of a pair, of a date or of the frame.
GranuleKind = Literal["pair", "mask", "epoch", "dem", "overview", "optional"]


class GranuleKey(str):
    """The key of a granule, unique within a cube: ``<kind>/<name>``, as in records and JSON output.

    It is a subclass of str, so that dictionaries of granules can be looked up with the text of a record.

    Examples
    --------
    >>> GranuleKey.of_pair(Pair.parse("20200101_20200113"))
    'pair/20200101_20200113'
    """

    __slots__ = ()

    @classmethod
    def of_pair(cls, pair: Pair) -> GranuleKey:
        """Return the key of an interferogram's phase and coherence."""
        return cls(f"pair/{pair.name}")

    @classmethod
    def of_mask(cls, pair: Pair) -> GranuleKey:
        """Return the key of an annotation and its masks."""
        return cls(f"mask/{pair.name}")

    @classmethod
    def of_epoch(cls, day: date) -> GranuleKey:
        """Return the key of the atmosphere at an acquisition date."""
        return cls(f"epoch/{day:%Y%m%d}")

    @classmethod
    def of_overview(cls, pair: Pair) -> GranuleKey:
        """Return the key of a pair's overview."""
        return cls(f"overview/{pair.name}")

    @classmethod
    def of_optional(cls, variable: str, place: Pair | date | None = None) -> GranuleKey:
        """Return the key of an optional variable of a pair, of a date, or (None) of the frame.

        Examples
        --------
        >>> GranuleKey.of_optional("gacos_delay", date(2020, 1, 13))
        'optional/gacos_delay.20200113'
        """
        where = f"{place:%Y%m%d}" if isinstance(place, date) else place.name if place else ""
        return cls(f"optional/{variable}.{where}".removesuffix("."))

    @property
    def kind(self) -> str:
        """Kind of the granule: ``pair``, ``mask``, ``epoch``, ``dem``, ``overview`` or ``optional``."""
        return self.partition("/")[0]

    @property
    def name(self) -> str:
        """Name of the granule, unique within its kind."""
        return self.partition("/")[2]

    @property
    def pair(self) -> Pair:
        """The pair of an interferogram, a mask or an overview."""
        return Pair.parse(self.name)

    @property
    def day(self) -> date:
        """The acquisition date of an atmosphere."""
        return parse_day(self.name)

    @property
    def variable(self) -> str:
        """The optional variable of a granule of this kind."""
        return self.name.partition(".")[0]

    @property
    def place(self) -> Pair | date | None:
        """The pair or the date of an optional variable; None for one of the frame."""
        return _parse_place(self.name.partition(".")[2])


def _parse_place(text: str) -> Pair | date | None:
    """Return the pair, the date or (empty) the frame that a part of a granule's name stands for."""
    return None if not text else Pair.parse(text) if "_" in text else parse_day(text)


#: Key of the DEM's granule, which also records the frame's reference grid.
DEM_KEY = GranuleKey("dem/dem")


class ChunkRef(msgspec.Struct, frozen=True, array_like=True):
    """Reference to a stored object: BLAKE3 hash and size in bytes."""

    digest: str
    size: int


class Granule(msgspec.Struct, frozen=True, dict=True, tag_field="kind"):  # dict: for cached_property
    """The smallest part of a cube that is built, hashed and stored as a whole.

    Its JSON form is ``{"kind", "name", "inputs", "objects", "receipts", "facts"}``. Each subclass writes its
    facts in its constructor ``make`` and exposes them as typed properties. Facts that this version does not
    know are kept unchanged.

    Attributes
    ----------
    name : str
        ``yyyymmdd_yyyymmdd`` for interferograms, masks and overviews, ``yyyymmdd`` for epochs, ``dem`` for
        the DEM, ``<variable>.<pair or date>`` or ``<variable>`` for optional variables.
    inputs : str
        Fingerprint of the inputs other than products (grid, annotation, schema). A granule whose inputs have
        changed is built again.
    objects : dict
        Stored objects by name: the variable, with the strip of an image, such as ``insar_difference.0``. A
        field of an epoch is listed once, although both date axes may show it.
    receipts : tuple of Receipt
        One receipt for every product that was requested.
    facts : dict
        Further properties as JSON values.
    """

    kind: ClassVar[GranuleKind]

    name: str
    inputs: str = ""
    objects: Mapping[str, ChunkRef] = {}
    receipts: tuple[Receipt, ...] = ()
    facts: Mapping[str, Any] = {}

    @property
    def key(self) -> GranuleKey:
        """Key of the granule, unique within a cube: ``<kind>/<name>``."""
        return GranuleKey(f"{self.kind}/{self.name}")

    @cached_property
    def outcome(self) -> Outcome:
        """Outcome of the first product that is missing; DOWNLOADED if none is."""
        bad = [receipt.outcome for receipt in self.receipts if not receipt.ok]
        return bad[0] if bad else Outcome.DOWNLOADED

    @cached_property
    def is_complete(self) -> bool:
        """Whether every product of the granule was obtained."""
        return self.outcome.ok

    @property
    def is_imported(self) -> bool:
        """Whether a product of it was imported from a published cube."""
        return any(receipt.origin == PUBLISHED for receipt in self.receipts)

    @property
    def needs_retry(self) -> bool:
        """Whether upstream promises what is missing here; a later build tries again."""
        return not self.is_complete

    @property
    def identity(self) -> tuple[Any, ...]:
        """What distinguishes it from another granule of the same key: all but when and why it was fetched."""
        products = tuple(
            (item.product, item.url, item.size, item.digest, item.last_modified, item.etag)
            if item.ok
            else (item.product, item.outcome)
            for item in self.receipts
        )
        return self.objects, self.inputs, self.facts, products


class PairGranule(Granule, frozen=True, tag_field="kind"):
    """A granule of a pair: an interferogram, a mask or an overview."""

    @cached_property
    def pair(self) -> Pair:
        """The pair."""
        return Pair.parse(self.name)

    @property
    def modified(self) -> str | None:
        """Time of the pair's last change according to the listing, when its products were fetched."""
        return self.facts.get("modified")


class InterferogramGranule(PairGranule, frozen=True, tag="pair", tag_field="kind"):
    """Phase and coherence of a pair."""

    kind: ClassVar[GranuleKind] = "pair"

    @classmethod
    def make(
        cls,
        pair: Pair,
        inputs: str,
        receipts: tuple[Receipt, ...],
        *,
        modified: str | None,
        elsewhere: bool = False,
        coverage: tuple[str, float] | None = None,
    ) -> InterferogramGranule:
        """Return the granule of a pair whose products were requested.

        Parameters
        ----------
        pair, inputs, receipts, modified
            See the attributes and properties of these names.
        elsewhere : bool
            See `is_elsewhere`.
        coverage : tuple of str and float, optional
            Alignment and valid fraction of a complete granule.
        """
        facts: dict[str, Any] = {"modified": modified}
        if elsewhere:
            facts["elsewhere"] = True
        if coverage is not None:
            facts["alignment"], facts["valid_fraction"] = coverage
        return cls(pair.name, inputs, receipts=receipts, facts=facts)

    @classmethod
    def make_unlisted(cls, pair: Pair, inputs: str, receipt: Receipt) -> InterferogramGranule:
        """Return the granule of a pair that is not in the listing.

        Parameters
        ----------
        pair, inputs
            See the attributes and properties of these names.
        receipt : Receipt
            Receipt of the pair, which states that it is absent.
        """
        return cls(pair.name, inputs, receipts=(receipt,), facts={"unlisted": True})

    @property
    def is_unlisted(self) -> bool:
        """Whether the pair was not in the listing when it was built."""
        return bool(self.facts.get("unlisted"))

    @property
    def needs_retry(self) -> bool:
        """Whether upstream promises what is missing here; a later build tries again."""
        return not self.is_complete and not self.is_unlisted

    @property
    def is_elsewhere(self) -> bool:
        """Whether a raster was obtained that could not be aligned to the frame's reference grid."""
        return bool(self.facts.get("elsewhere"))

    @property
    def alignment(self) -> str:
        """How the raster was brought to the reference grid, one of ``ALIGNMENT_KINDS``; if complete only."""
        return cast(str, self.facts["alignment"])

    @property
    def valid_fraction(self) -> float:
        """Fraction of the grid's pixels that have data, 0 to 1; if complete only."""
        return cast(float, self.facts["valid_fraction"])


class MaskGranule(PairGranule, frozen=True, tag="mask", tag_field="kind"):
    """The annotation of a pair and the masks drawn from it."""

    kind: ClassVar[GranuleKind] = "mask"

    @classmethod
    def make(
        cls,
        pair: Pair,
        inputs: str,
        receipts: tuple[Receipt, ...] = (),
        *,
        annotation: Mapping[str, Any],
        grid_inputs: str,
        preview: tuple[Mapping[str, Any], bool, str | None] | None = None,
    ) -> MaskGranule:
        """Return the granule of an annotated pair.

        Parameters
        ----------
        pair, inputs, receipts, annotation, grid_inputs
            See the attributes and properties of these names.
        preview : tuple, optional
            For annotations with polygons: geometry of the preview, whether the pair was in the listing, and
            the time of the pair's last change according to the listing.
        """
        facts: dict[str, Any] = {"annotation": annotation, "grid": grid_inputs}
        if preview is not None:
            facts["preview"], facts["listed"], facts["modified"] = preview
        return cls(pair.name, inputs, receipts=receipts, facts=facts)

    @property
    def annotation(self) -> Mapping[str, Any]:
        """Values of the annotation by the cube's variable."""
        return cast(Mapping[str, Any], self.facts["annotation"])

    @property
    def grid_inputs(self) -> str | None:
        """Fingerprint of the grid that the masks were drawn on; None in records of early versions."""
        return self.facts.get("grid")

    @property
    def projection(self) -> str | None:
        """Projection of the preview that the polygons were drawn on; None without polygons."""
        preview = self.facts.get("preview")
        return cast(str, preview["projection"]) if preview else None

    @property
    def evidence(self) -> str:
        """Where the geometry of the preview is known from; empty without polygons."""
        return str(self.facts.get("preview", {}).get("evidence", ""))

    @property
    def was_listed(self) -> bool:
        """Whether the pair was in the listing, so that its preview was requested; with polygons only."""
        return cast(bool, self.facts["listed"])


class OverviewGranule(PairGranule, frozen=True, tag="overview", tag_field="kind"):
    """Small images of a pair, made from its other granules and those of its two dates.

    It has no products of its own: its `inputs` are the objects that it was made of, so that it is made again
    when one of them changes.
    """

    kind: ClassVar[GranuleKind] = "overview"

    @classmethod
    def make(cls, pair: Pair, inputs: str, factor: int) -> OverviewGranule:
        """Return the overview of a pair.

        Parameters
        ----------
        pair, inputs, factor
            See the attributes and properties of these names.
        """
        return cls(pair.name, inputs, facts={"factor": factor})

    @property
    def factor(self) -> int:
        """Pixels of the frame's grid for each of its own, along either axis."""
        return cast(int, self.facts["factor"])


class EpochGranule(Granule, frozen=True, tag="epoch", tag_field="kind"):
    """ERA5 fields at an acquisition date."""

    kind: ClassVar[GranuleKind] = "epoch"

    @classmethod
    def make(
        cls,
        day: date,
        inputs: str,
        receipts: tuple[Receipt, ...],
        era5: tuple[int | None, str, str] | None = None,
    ) -> EpochGranule:
        """Return the granule of a date.

        Parameters
        ----------
        day, inputs, receipts
            See the attributes and properties of these names.
        era5 : tuple of int, str and str, optional
            ERA5 time, version and source of a complete granule; no time where a published cube does not state
            it.
        """
        names = ("era5_time", "era5_expver", "source")
        known = zip(names, era5, strict=True) if era5 is not None else ()
        facts = {name: value for name, value in known if value is not None}
        return cls(f"{day:%Y%m%d}", inputs, receipts=receipts, facts=facts)

    @property
    def day(self) -> date:
        """The acquisition date."""
        return parse_day(self.name)

    @property
    def era5_time(self) -> int | None:
        """Time of the fields, in hours since 1970-01-01 UTC."""
        return self.facts.get("era5_time")

    @property
    def era5_expver(self) -> str | None:
        """Version of the fields (ERA5's ``expver``): final, preliminary or unstated."""
        return self.facts.get("era5_expver")

    @property
    def source(self) -> str | None:
        """Archive that the fields came from."""
        return self.facts.get("source")


class DemGranule(Granule, frozen=True, tag="dem", tag_field="kind"):
    """The DEM, and the frame's reference grid."""

    kind: ClassVar[GranuleKind] = "dem"

    @classmethod
    def make(cls, inputs: str, receipts: tuple[Receipt, ...], grid: Grid | None) -> DemGranule:
        """Return the granule of a frame's DEM with its reference grid.

        Parameters
        ----------
        inputs, receipts
            See the attributes of these names.
        grid : Grid or None
            The frame's reference grid; None while it is unknown.
        """
        return cls("dem", inputs, receipts=receipts, facts={"grid": asdict(grid)} if grid else {})

    @property
    def grid(self) -> Grid | None:
        """The frame's reference grid; None while it is unknown, and in records of early versions."""
        return Grid(**self.facts["grid"]) if "grid" in self.facts else None


class OptionalGranule(Granule, frozen=True, tag="optional", tag_field="kind"):
    """An optional variable of a pair, of a date or of the frame."""

    kind: ClassVar[GranuleKind] = "optional"

    @classmethod
    def make(
        cls,
        key: GranuleKey,
        inputs: str,
        receipts: tuple[Receipt, ...],
        *,
        modified: str | None = None,
        alignment: str | None = None,
        metres: Mapping[str, float] | None = None,
    ) -> OptionalGranule:
        """Return the granule of an optional variable whose product was requested.

        Parameters
        ----------
        key : GranuleKey
            Key with variable and place.
        inputs, receipts
            See the attributes of these names.
        modified : str, optional
            Time of the pair's last change according to the listing.
        alignment : str, optional
            How a raster was brought to the reference grid, one of ``ALIGNMENT_KINDS``.
        metres : dict of str to float, optional
            See :attr:`metres`.
        """
        facts = {"modified": modified, "alignment": alignment, "metres": metres}
        return cls(
            key.name,
            inputs,
            receipts=receipts,
            facts={name: value for name, value in facts.items() if value is not None},
        )

    @property
    def variable(self) -> str:
        """The variable, without the date axis."""
        return self.key.variable

    @cached_property
    def place(self) -> Pair | date | None:
        """The pair or the date; None for a variable of the frame."""
        return self.key.place

    @property
    def modified(self) -> str | None:
        """Time of the pair's last change according to the listing, when its product was fetched."""
        return self.facts.get("modified")

    @property
    def metres(self) -> Mapping[str, float]:
        """Perpendicular baselines of the cube's acquisitions (``yyyymmdd``) to one of them, m."""
        return cast(Mapping[str, float], self.facts.get("metres", {}))


def present_optional_variables(granules: Iterable[Granule]) -> set[str]:
    """Return the optional variables that a cube of these granules has."""
    return {granule.variable for granule in granules if isinstance(granule, OptionalGranule)}


#: The types of granule that a record contains, distinguished by ``kind``.
AnyGranule = (
    InterferogramGranule | MaskGranule | EpochGranule | DemGranule | OverviewGranule | OptionalGranule
)
