"""Granules, the smallest parts of a cube that are built: pairs, masks, epochs, overviews and the DEM.

A cube is a pure function of its granules: the axes, the key of every stored object and the tables of flags
are derived from them. Therefore a build can be interrupted at any point and resumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from functools import cached_property
from typing import Any, ClassVar, Literal, cast

import msgspec

from hephaestus_build.core.frames import Pair, parse_day
from hephaestus_build.core.grid import Grid
from hephaestus_build.core.provenance import Outcome, Receipt
from hephaestus_build.cube.codecs.image_encoder import chunk_name, split_object_name
from hephaestus_build.cube.schema import cube_schema

#: pair: phase and coherence of a pair; mask: an annotation and its masks; epoch: ERA5 at a date;
#: overview: small images of a pair; dem: DEM.
GranuleKind = Literal["pair", "mask", "epoch", "overview", "dem"]


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

    @property
    def kind(self) -> str:
        """Kind of the granule: ``pair``, ``mask``, ``epoch``, ``overview`` or ``dem``."""
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
        the DEM.
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
        era5: tuple[int, str, str] | None = None,
    ) -> EpochGranule:
        """Return the granule of a date.

        Parameters
        ----------
        day, inputs, receipts
            See the attributes and properties of these names.
        era5 : tuple of int, str and str, optional
            ERA5 time, version and source of a complete granule.
        """
        names = ("era5_time", "era5_expver", "source")
        facts = dict(zip(names, era5, strict=True)) if era5 is not None else {}
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
    def make(cls, inputs: str, receipts: tuple[Receipt, ...], grid: Grid) -> DemGranule:
        """Return the granule of a frame's DEM with its reference grid.

        Parameters
        ----------
        inputs, receipts
            See the attributes of these names.
        grid : Grid
            The frame's reference grid.
        """
        return cls("dem", inputs, receipts=receipts, facts={"grid": asdict(grid)})

    @property
    def grid(self) -> Grid | None:
        """The frame's reference grid; None in records of early versions."""
        return Grid(**self.facts["grid"]) if "grid" in self.facts else None


#: The types of granule that a record contains, distinguished by ``kind``.
AnyGranule = InterferogramGranule | MaskGranule | EpochGranule | OverviewGranule | DemGranule


@dataclass(frozen=True)
class DateAxes:
    """The axes of a cube, each without duplicates.

    Attributes
    ----------
    primary, secondary : tuple of datetime.date
        Dates of the two date axes, sorted.
    pairs : tuple of Pair
        The axis ``pair`` of the groups, sorted by secondary, then primary date.
    """

    primary: tuple[date, ...]
    secondary: tuple[date, ...]
    pairs: tuple[Pair, ...] = ()

    @classmethod
    def from_granules(cls, granules: Iterable[Granule]) -> DateAxes:
        """Return the axes that contain every pair of `granules`, whether complete or not."""
        pairs = {granule.pair for granule in granules if isinstance(granule, PairGranule)}
        return cls(
            tuple(sorted({pair.primary for pair in pairs})),
            tuple(sorted({pair.secondary for pair in pairs})),
            tuple(sorted(pairs, key=lambda pair: (pair.secondary, pair.primary))),
        )

    @property
    def epochs(self) -> tuple[date, ...]:
        """Every date of either axis, sorted."""
        return tuple(sorted({*self.primary, *self.secondary}))


class ChunkKeys:
    """The keys of stored objects in a store with given axes.

    Parameters
    ----------
    axes : DateAxes
        Date axes of the store.
    """

    def __init__(self, axes: DateAxes) -> None:
        self._primary = {day: index for index, day in enumerate(axes.primary)}
        self._secondary = {day: index for index, day in enumerate(axes.secondary)}
        self._epoch = {day: index for index, day in enumerate(axes.epochs)}
        self._row = {pair: index for index, pair in enumerate(axes.pairs)}

    def pair_index(self, pair: Pair) -> tuple[int, int]:
        """Return the positions of `pair` on the two date axes."""
        return self._primary[pair.primary], self._secondary[pair.secondary]

    def epoch_index(self, day: date) -> int:
        """Return the position of `day` on the epoch axis."""
        return self._epoch[day]

    def keys(self, granule: Granule) -> Iterator[tuple[str, str]]:
        """Yield (object name, key in the store) for every key of an object of `granule`.

        Examples
        --------
        An epoch whose date is third on both date axes has one object for each field, with two keys:
        ``primary_date_surface_pressure/c.2.0.0`` and ``secondary_date_surface_pressure/c.2.0.0``.
        """
        if isinstance(granule, EpochGranule):
            yield from self._epoch_keys(granule, granule.day)
            return
        if isinstance(granule, OverviewGranule):
            yield from self._overview_keys(granule)
            return
        at = self.pair_index(granule.pair) if isinstance(granule, PairGranule) and granule.objects else ()
        for name in granule.objects:
            variable, strip = split_object_name(name)
            yield name, f"{variable}/{chunk_name(at, 2, strip)}"

    def _overview_keys(self, granule: OverviewGranule) -> Iterator[tuple[str, str]]:
        chunk = chunk_name((self._row[granule.pair],), 2)
        for name in granule.objects:
            yield name, f"overview/{name}/{chunk}"

    def _epoch_keys(self, granule: Granule, day: date) -> Iterator[tuple[str, str]]:
        variables = cube_schema().variables
        last = chunk_name((self._epoch[day],), 2)
        # a field that both date axes show is one object, linked on each axis that has the date
        axes = [
            (axis, chunk_name((positions[day],), 2))
            for axis, positions in (("primary", self._primary), ("secondary", self._secondary))
            if day in positions
        ]
        for name in granule.objects:
            if name in variables:
                yield name, f"{name}/{last}"
            else:
                for axis, on_it in axes:
                    yield name, f"{axis}_date_{name}/{on_it}"
