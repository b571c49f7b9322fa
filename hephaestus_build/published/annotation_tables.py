"""The annotations of a published cube, compared with and completed by the annotation archive."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hephaestus_build.core.frames import Pair
from hephaestus_build.core.plain_text import count_of, sanitize_text
from hephaestus_build.cube.schema import MASK_VARIABLES, cube_schema
from hephaestus_build.processing.mask_rasterization import expected_codes
from hephaestus_build.published.published_cube import PublishedCube
from hephaestus_build.sources.annotations.record import FLAGS, MISSING_FLAG, Annotation, clean_text

TEXTS = ("phase", "caption")
#: Every value of an annotation that a cube holds.
NAMES = (*FLAGS, "phase", "confidence", "caption", "unique_id")
_MAX_TEXT_LENGTH = 10_000
_CONFIDENCE_TOLERANCE = 1e-6
_QUOTED = 60


@dataclass
class AnnotationTables:
    """Annotations of a published cube.

    Attributes
    ----------
    tables : dict
        Tables of the cube on its two date axes, by name; those that it lacks are not there.
    annotations : mapping of Pair to Annotation
        What the annotation archive says; empty if there is none.
    differences : Counter of str
        Number of pairs in which the cube differs from the annotations, by value or mask.
    examples : dict of str to str
        The first difference of each.
    """

    published: PublishedCube
    annotations: Mapping[Pair, Annotation]
    tables: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    differences: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tables = {name: self.published.cube.table(name) for name in NAMES if name in self.published.cube}

    def values(self, pair: Pair) -> dict[str, Any]:
        """Return the values of a pair's annotation: as the cube has them, else as the archive says.

        A value that no annotation may have is replaced in the same way.
        """
        annotation = self.annotations.get(pair)
        found: dict[str, Any] = {}
        for name in NAMES:
            said = getattr(annotation, name) if annotation is not None else _empty(name)
            value = self._value(name, pair)
            if value is None:
                found[name] = said
                continue
            found[name] = value
            if annotation is not None and not _same(value, said):
                self._note(name, pair, f"{_short(value)} in the cube, {_short(said)} in the annotations")
        return found

    def check_codes(self, pair: Pair, masks: Mapping[str, npt.NDArray[np.uint8]]) -> None:
        """Note where the codes of a pair's masks are not those of its annotation."""
        annotation = self.annotations.get(pair)
        if annotation is None:
            return
        for name, right in zip(MASK_VARIABLES, expected_codes(annotation), strict=True):
            codes = set(np.unique(masks[name]).tolist()) - {0}
            # a polygon may be covered by another, or be smaller than a pixel
            if not codes <= right or bool(codes) != bool(right):
                words = (", ".join(map(str, sorted(some))) or "none" for some in (codes, right))
                cube, said = words
                self._note(name, pair, f"codes {cube} in the cube, {said} by the annotation")

    def findings(self) -> list[str]:
        """Return one line for each value or mask that differs from the annotations, and for lacking pairs."""
        lines = []
        lacking = sorted(pair.name for pair in self.annotations.keys() - set(self.published.pairs))
        if lacking:
            lines.append(
                f"it lacks {count_of(len(lacking), 'annotated pair')}, as {lacking[0]}, which the next build "
                f"fetches where the archive has them"
            )
        for name, count in sorted(self.differences.items()):
            pairs = "1 pair" if count == 1 else f"{count} pairs"
            lines.append(f"{name} is not that of the annotations in {pairs}, as in {self.examples[name]}")
        return lines

    def _note(self, name: str, pair: Pair, what: str) -> None:
        self.differences[name] += 1
        line = f"{pair.name}: {what}"
        self.examples[name] = min(self.examples.get(name, line), line)  # whatever the order of threads

    def _value(self, name: str, pair: Pair) -> Any:
        """Return the cube's value of a pair; None if it has none, or one that no annotation has."""
        if name not in self.tables:
            return None
        value = self.tables[name][self.published.cube.pairs[pair]]
        value = value.item() if isinstance(value, np.generic) else value
        if name in TEXTS:
            return clean_text(value, _MAX_TEXT_LENGTH) if isinstance(value, str) else None
        if not isinstance(value, int | float) or not math.isfinite(value):
            return None
        if name == "confidence":
            return value if 0 <= value <= 1 else None
        whole = int(value)
        if name == "unique_id":
            return whole if 0 <= whole < 1 << 31 else None
        allowed = cube_schema().variables[name].attributes["flag_values"]
        return whole if whole == value and whole in allowed and whole != MISSING_FLAG else None


def _empty(name: str) -> Any:
    """Return the value of an annotation that nobody has written."""
    return "" if name in TEXTS else math.nan if name == "confidence" else MISSING_FLAG


def _same(value: Any, said: Any) -> bool:
    if isinstance(value, float) and isinstance(said, float):
        return abs(value - said) <= _CONFIDENCE_TOLERANCE or (math.isnan(value) and math.isnan(said))
    return bool(value == said)


def _short(value: Any) -> str:
    return repr(sanitize_text(value, _QUOTED)) if isinstance(value, str) else f"{value:g}"
