"""Parser of single annotations: one JSON object per interferogram, and the defects found in it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frames import Frame, Pair, parse_day
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.registry import load_schema, published_frames

ANNOTATION_PROPERTIES = load_schema("annotation.json")["properties"]
LABELS: tuple[str, ...] = tuple(ANNOTATION_PROPERTIES["label"]["items"]["enum"])
ACTIVITIES: tuple[str, ...] = tuple(ANNOTATION_PROPERTIES["activity_type"]["items"]["enum"])
INTENSITIES: tuple[str, ...] = tuple(ANNOTATION_PROPERTIES["intensity_level"]["items"]["enum"])
PHASES: tuple[str, ...] = tuple(ANNOTATION_PROPERTIES["phase"]["enum"])
#: The integer fields besides uniqueID; the cube's variables have the same names.
FLAGS: tuple[str, ...] = tuple(
    name
    for name, rule in ANNOTATION_PROPERTIES.items()
    if all(isinstance(value, int) for value in rule.get("enum", ["no"]))
)
_MAX_COORDINATE = 1e5  # preview pixels; the widest preview has 2,100
_MAX_POLYGON_NUMBERS = 20_000  # coordinates of a polygon; the longest published one has 100
_MAX_LIST_LENGTH = 200  # polygons or words in one file; the most in a published one are 4
_MAX_TEXT_LENGTH = 10_000  # characters of a caption; the longest published one has 572
_MAX_WORD_LENGTH = 100
_MAX_FINDINGS = 20  # listed findings about one file; further ones are only counted
#: Value of a flag that the file lacks; no published file has it.
MISSING_FLAG = -1


_parse_day_cached = lru_cache(maxsize=8192)(parse_day)  # the published files have 3,000 distinct dates


@dataclass(frozen=True)
class Defect:
    """A problem in one annotation file, and how it was treated.

    Attributes
    ----------
    file : str
        Name of the file without its folders.
    what, action : str
        The finding, and how it was treated.
    kind : str
        Short name of the kind of finding.
    """

    file: str
    what: str
    action: str
    kind: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class Annotation:
    """An expert's annotation of one interferogram.

    Attributes
    ----------
    unique_id : int
        Unique over all annotations; also the file's name.
    frame : Frame
        Frame of the interferogram.
    pair : Pair
        Dates of the interferogram.
    label, activity_type, intensity_level : tuple of str
        As written; the latter two have one entry per polygon, except where a defect says otherwise.
    polygons : tuple of numpy.ndarray
        Vertices in preview pixels, shape (n, 2), x to the right and y down from the preview's top left
        corner; not closed. A polygon that could not be read has no vertices and keeps its place.
    phase : str
        State of the volcano: ``Rest``, ``Unrest``, ``Rebound`` or ``None``.
    corrupted, processing_error, glacier_fringes, orbital_fringes, atmospheric_fringes, low_coherence, \
no_info, image_artifacts, is_crowd : int
        As written; -1 if missing.
    confidence : float
        From 0 to 1; NaN if missing.
    caption : str
        The expert's description.
    """

    unique_id: int
    frame: Frame
    pair: Pair
    label: tuple[str, ...] = ()
    activity_type: tuple[str, ...] = ()
    intensity_level: tuple[str, ...] = ()
    polygons: tuple[np.ndarray, ...] = ()
    phase: str = ""
    corrupted: int = MISSING_FLAG
    processing_error: int = MISSING_FLAG
    glacier_fringes: int = MISSING_FLAG
    orbital_fringes: int = MISSING_FLAG
    atmospheric_fringes: int = MISSING_FLAG
    low_coherence: int = MISSING_FLAG
    no_info: int = MISSING_FLAG
    image_artifacts: int = MISSING_FLAG
    is_crowd: int = MISSING_FLAG
    confidence: float = math.nan
    caption: str = ""

    def __repr__(self) -> str:
        label = ", ".join(self.label) or "no label"
        return f"<Annotation {self.unique_id}: {self.frame} {self.pair}, {self.phase or 'no phase'}, {label}>"

    @property
    def is_deforming(self) -> bool:
        """Whether the expert saw deformation of any kind, earthquakes included."""
        return "Deformation" in self.label or "Earthquake" in self.label

    @property
    def labeled_polygons(self) -> Iterator[tuple[npt.NDArray[Any], str, str]]:
        """Each readable polygon with the activity type and intensity level at the same index.

        Surplus words belong to no polygon; a polygon without words gets ``Unidentified`` and ``None``.
        """
        for index, polygon in enumerate(self.polygons):
            if len(polygon):
                activity = self.activity_type[index] if index < len(self.activity_type) else "Unidentified"
                level = self.intensity_level[index] if index < len(self.intensity_level) else "None"
                yield polygon, activity, level


def parse_annotation(content: Mapping[str, Any], file: str, defects: list[Defect]) -> Annotation | None:
    """Parse the annotation in one JSON object.

    Parameters
    ----------
    content : mapping
        The parsed JSON object.
    file : str
        Name of its file, for `defects`.
    defects : list of Defect
        Findings are appended here: the first twenty of the object, then their number.

    Returns
    -------
    Annotation or None
        None if the object does not identify an interferogram.
    """
    findings: list[Defect] = []

    def report(kind: str, what: str, action: str) -> None:
        findings.append(Defect(file, sanitize_text(what, 300), action, kind))

    try:
        return _parse(content, report)
    finally:
        defects += findings[:_MAX_FINDINGS]
        if (more := len(findings) - _MAX_FINDINGS) > 0:
            defects.append(Defect(file, f"{more} more findings", "not listed", "many findings"))


def _parse(content: Mapping[str, Any], report: Any) -> Annotation | None:
    try:
        unique_id = content["uniqueID"]
        if not isinstance(unique_id, int) or isinstance(unique_id, bool) or not 0 <= unique_id < 1 << 31:
            raise ValueError(f"uniqueID {shorten_repr(unique_id)} is not a whole number")
        frame = Frame(content["frameID"]) if isinstance(content["frameID"], str) else None
        if frame is None:
            raise ValueError("frameID is not text")
        days = [content["primary_date"], content["secondary_date"]]
        if not all(isinstance(day, str) and len(day) <= _MAX_WORD_LENGTH for day in days):
            raise ValueError(f"the dates {shorten_repr(days)} are not dates")
        pair = Pair(*map(_parse_day_cached, days))
    except KeyError as error:
        report("unusable", f"{error.args[0]} is missing", "left out")
        return None
    except UsageError:
        report("unknown frame", f"frameID {shorten_repr(content['frameID'])} is not a frame id", "left out")
        return None
    except (ValueError, TypeError, AttributeError) as error:
        report("unusable", shorten_repr(str(error)), "left out")
        return None

    if frame.id not in published_frames() and not frame.is_simulated:
        report("unknown frame", f"frame {frame} is not one of the 38 published frames", "kept")
    for name in sorted(set(content) - set(ANNOTATION_PROPERTIES))[: 2 * _MAX_FINDINGS]:
        report("unknown field", f"field {shorten_repr(name)} is not known", "ignored")
    polygons = _parse_polygons(content.get("segmentation_mask"), report)
    annotation = Annotation(
        unique_id=unique_id,
        frame=frame,
        pair=pair,
        polygons=polygons,
        label=_parse_words(content, "label", LABELS, report),
        activity_type=_parse_words(content, "activity_type", ACTIVITIES, report),
        intensity_level=_parse_words(content, "intensity_level", INTENSITIES, report),
        phase=_parse_word(content, "phase", PHASES, report),
        caption=_parse_word(content, "caption", None, report),
        confidence=_parse_confidence(content.get("confidence"), report),
        **{name: _parse_flag(content, name, report) for name in FLAGS},
    )
    _check_consistency(annotation, report)
    return annotation


def _check_consistency(annotation: Annotation, report: Any) -> None:
    count, activities, levels = (
        len(annotation.polygons), len(annotation.activity_type), len(annotation.intensity_level)
    )  # fmt: skip
    if not count == activities == levels:
        report(
            "uneven lists",
            f"{activities} activity types, {levels} intensity levels, {count} polygons",
            f"each polygon takes the word at its own place; {max(activities, levels) - count} left over"
            if max(activities, levels) > count
            else "a polygon without a word counts as Unidentified, None",
        )
    if annotation.is_crowd != MISSING_FLAG and annotation.is_crowd != int(count > 1):
        report("is_crowd", f"is_crowd is {annotation.is_crowd} with {count} polygons", "kept as written")
    if annotation.is_deforming != bool(count):
        report("label", f"label {'+'.join(annotation.label)} with {count} polygons", "both kept as written")
    if annotation.is_deforming == (annotation.phase == "Rest"):
        report(
            "label",
            f"label {'+'.join(annotation.label) or 'missing'} with phase {annotation.phase or 'missing'}",
            "both kept as written",
        )
    for index, polygon in enumerate(annotation.polygons):
        if len(np.unique(polygon, axis=0)) < len(polygon):
            report("repeated vertex", f"polygon {index} repeats a vertex", "kept; the area is the same")
        if len(polygon) and (area := polygon_area(polygon)) < 20:
            report("tiny polygon", f"polygon {index} covers only {area:.1f} preview pixels", "kept")


def polygon_area(polygon: npt.NDArray[Any]) -> float:
    """Return the area of a simple `polygon`, shape (n, 2), in squared units of its coordinates.

    Computed with the shoelace formula.
    """
    x, y = polygon[:, 0], polygon[:, 1]
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def _parse_polygons(value: Any, report: Any) -> tuple[np.ndarray, ...]:
    if not isinstance(value, list):
        report("polygon", "segmentation_mask is missing or not a list", "read as no polygon")
        return ()
    if len(value) > _MAX_LIST_LENGTH:
        report("polygon", f"segmentation_mask holds {len(value)} polygons", "read as no polygon")
        return ()
    polygons = []
    for index, flat in enumerate(value):
        reason = ""
        polygon = np.empty((0, 2), np.float64)
        if not isinstance(flat, list) or len(flat) % 2 or len(flat) < 6:
            reason = "is not a list of three or more x, y"
        elif len(flat) > _MAX_POLYGON_NUMBERS:
            reason = f"has {len(flat) // 2} vertices"
        elif not all(isinstance(number, int | float) and not isinstance(number, bool) for number in flat):
            reason = "holds a value that is not a number"
        else:
            array = np.asarray(flat, np.float64)
            if not np.isfinite(array).all():
                reason = "has a vertex that is not finite"
            elif np.abs(array).max() > _MAX_COORDINATE:
                reason = "has a vertex far outside any preview"
            else:
                polygon = array.reshape(-1, 2)
        if reason:
            report("polygon", f"polygon {index} {reason}", "left out of the masks")
        polygon.setflags(write=False)
        polygons.append(polygon)
    return tuple(polygons)


def _parse_words(content: Mapping[str, Any], name: str, known: Iterable[str], report: Any) -> tuple[str, ...]:
    value = content.get(name)
    if not isinstance(value, list):
        report("missing", f"{name} is missing or not a list", "read as empty")
        return ()
    if len(value) > _MAX_LIST_LENGTH:
        report("missing", f"{name} holds {len(value)} words", "read as empty")
        return ()
    words = []
    for word in value:
        if word not in known:
            report(
                "unknown word", f"{name} holds {shorten_repr(word)}", "kept; a mask shows it as unidentified"
            )
        words.append(clean_text(word, _MAX_WORD_LENGTH) if isinstance(word, str) else shorten_repr(word))
    return tuple(words)


def _parse_word(content: Mapping[str, Any], name: str, known: Iterable[str] | None, report: Any) -> str:
    value = content.get(name)
    if not isinstance(value, str):
        report("missing", f"{name} is missing or not text", "read as empty")
        return ""
    if known is not None and value not in known:
        report("unknown word", f"{name} is {shorten_repr(value)}", "kept as written")
    kept = clean_text(value, _MAX_TEXT_LENGTH if known is None else _MAX_WORD_LENGTH)
    if kept != value:
        report(
            "text", f"{name} is too long or has invalid characters", "cut, or the characters replaced by ?"
        )
    return kept


def clean_text(text: str, limit: int) -> str:
    """Return at most `limit` characters of `text`, with NUL and unpaired surrogates replaced by ``?``."""
    return text[:limit].encode("utf-8", "replace").decode().replace("\0", "?")


def _parse_flag(content: Mapping[str, Any], name: str, report: Any) -> int:
    value = content.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 127:
        report(
            "missing", f"{name} is {shorten_repr(value)}, not a small whole number", f"read as {MISSING_FLAG}"
        )
        return MISSING_FLAG
    if value not in ANNOTATION_PROPERTIES[name]["enum"]:
        documented = ", ".join(map(str, ANNOTATION_PROPERTIES[name]["enum"]))
        report("undocumented value", f"{name} is {value}, documented are {documented}", "kept as written")
    return value


def _parse_confidence(value: Any, report: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        report("missing", f"confidence is {shorten_repr(value)}, not between 0 and 1", "read as NaN")
        return math.nan
    return float(value)


def shorten_repr(value: Any, limit: int = 80) -> str:
    """Return `value` as one printable line of at most `limit` characters."""
    return sanitize_text(value if isinstance(value, str) else repr(value), limit)
