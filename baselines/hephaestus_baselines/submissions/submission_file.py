"""Submission files: a header, and one row for each sample with a probability. Torch is not needed.

A file may come from an untrusted source: it is bounded, read as plain text, and nothing in it is executed.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from hephaestus_baselines.config.run_config import FolderName, Recipe
from hephaestus_baselines.config.tasks import DetectionTask
from hephaestus_baselines.config.validation_errors import first_mistake
from hephaestus_build.core.atomic_io import hash_bytes, translate_os_errors, write_atomic
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.parsing import decode_utf8, parse_json, read_bounded
from hephaestus_build.core.plain_text import count_of, sanitize_text
from hephaestus_build.dataset.splits import SplitPart
from hephaestus_build.dataset.tiling import TilingMode

SUBMISSION_FORMAT: Literal["hephaestus-submission/1"] = "hephaestus-submission/1"
#: ``window``: a probability for each window. ``interferogram``: one for each interferogram or series.
SubmissionUnit = Literal["window", "interferogram"]
#: Bounds of a file; all windows of the 38 frames are a tenth of these rows.
_MAX_FILE_BYTES, _MAX_ROWS = 256 << 20, 2_000_000
_MAX_HEADER_LINES, _MAX_LINE = 64, 2000
_COLUMNS = ("frame", "pair", "row", "column", "part", "probability")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)
_WHOLE_NUMBER = re.compile(r"\d{1,6}(\.0)?", re.ASCII)
#: Suffixes of files with one JSON object a line; any other file is CSV.
_JSON_SUFFIXES = (".jsonl", ".ndjson")


def _validate_model_name(text: str) -> str:
    name = sanitize_text(text, 100)
    if not name:
        raise ValueError("a model needs a name")
    return name


class SubmissionHeader(BaseModel):
    """What the probabilities of a submission are of.

    Attributes
    ----------
    format : str
    model : str
        Name of the model in tables.
    task : {"classification", "segmentation"}
    unit : {"window", "interferogram"}
        What has a probability; segmentations have maps of whole interferograms.
    split, split_sha256 : str
        Name and hash of the split.
    samples_sha256 : str
        Hash of all validation and test windows with their labels, see
        :func:`~hephaestus_baselines.submissions.scored_samples.hash_samples`.
    series : bool
        Whether a sample is a series of three interferograms.
    tiling, size, positives, uncertain : str, int, str, str
        As in a run's recipe.
    simulated : bool
        Whether any frame is simulated.
    maps : str
        Name of a file (.npz) or folder with the maps of a segmentation, beside the submission.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["hephaestus-submission/1"] = SUBMISSION_FORMAT
    model: Annotated[str, Field(max_length=1000), AfterValidator(_validate_model_name)]
    task: DetectionTask
    unit: SubmissionUnit = "window"
    split: FolderName
    split_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    samples_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    series: bool = False
    tiling: TilingMode = "whole-frame"
    size: int = Field(512, ge=32, le=8192, multiple_of=32)
    positives: Literal["any", "volcanic"] = "any"
    uncertain: Literal["by-task", "exclude", "keep"] = "by-task"
    simulated: bool = False
    maps: str = Field("", pattern=r"^([A-Za-z0-9][A-Za-z0-9._ -]{0,99})?$")

    @property
    def recipe(self) -> Recipe:
        """The recipe with these settings of the data, for the code that prepares and scores runs."""
        return protocol_recipe(
            self.task, split=self.split, series=self.series, tiling=self.tiling, size=self.size,
            positives=self.positives, uncertain=self.uncertain,
        )  # fmt: skip


def protocol_recipe(task: DetectionTask, **fields: Any) -> Recipe:
    """Return a recipe of which only the settings of the data matter.

    Raises
    ------
    UsageError
        If a setting is invalid.
    """
    try:
        return Recipe(task=task, model="submission", batch_size=2, **fields)
    except ValidationError as error:
        raise UsageError(f"these settings do not go together: {first_mistake(error)}") from error


class SampleKey(NamedTuple):
    """What a row of a submission is of: an interferogram or series, and for windows the window's corner."""

    frame: str
    pair: str
    row: int = -1
    column: int = -1

    def __str__(self) -> str:
        window = "" if self.row < 0 else f" row {self.row} column {self.column}"
        return f"{sanitize_text(self.frame, 40)} {sanitize_text(self.pair, 60)}{window}"


@dataclass(frozen=True)
class Submission:
    """A submission as it was read: syntactically right, and not yet compared with the samples.

    Attributes
    ----------
    path : pathlib.Path
    blake3 : str
        BLAKE3 hash of the file.
    header : SubmissionHeader
    rows : sequence of (SampleKey, part, probability)
        In the order of the file. The part is empty if the file does not state it; the probability is the
        text or number as given, None for a segmentation.
    """

    path: Path
    blake3: str
    header: SubmissionHeader
    rows: Sequence[tuple[SampleKey, str, Any]]


def read_submission(path: Path) -> Submission:
    """Read a submission: CSV with a header of ``# name: value`` lines, or JSON Lines.

    Raises
    ------
    HephaestusError
        If it cannot be read, is too large, or has another form.
    """
    try:
        content = read_bounded(path, _MAX_FILE_BYTES)
        # before it is parsed: a row takes a hundred times the memory of its text
        if max(content.count(b"\n"), content.count(b"\r")) > _MAX_ROWS + _MAX_HEADER_LINES:
            raise ValueError(f"it has more than {_MAX_ROWS} rows")
        text = decode_utf8(content)
        read = _read_json_lines if path.suffix.lower() in _JSON_SUFFIXES else _read_csv
        header, rows = read(text)
        wanted = _wanted_columns(header)
        return Submission(path, hash_bytes(content), header, [_parse_row(row, wanted) for row in rows])
    except ValidationError as error:
        raise _unreadable(path, f"its header has {first_mistake(error)}") from error
    except OSError as error:
        raise _unreadable(path, error.strerror or error) from error
    except (ValueError, csv.Error) as error:
        raise _unreadable(path, error) from error


def write_submission(
    path: Path,
    header: SubmissionHeader,
    rows: Sequence[tuple[SampleKey, SplitPart, float | None]],
) -> None:
    """Write a submission atomically; a missing probability is left empty, to be filled in.

    Raises
    ------
    HephaestusError
        If the file cannot be written.
    """
    told = {name: value for name, value in header.model_dump(mode="json").items() if value != ""}
    columns = [*_wanted_columns(header)]
    columns.insert(-1 if "probability" in columns else len(columns), "part")
    lines = ({**key._asdict(), "part": part, "probability": value} for key, part, value in rows)
    stream = io.StringIO()
    if path.suffix.lower() in _JSON_SUFFIXES:
        for line in (told, *lines):
            stream.write(json.dumps({k: v for k, v in line.items() if line is told or k in columns}) + "\n")
    else:
        stream.writelines(f"# {name}: {_header_text(value)}\n" for name, value in told.items())
        writer = csv.DictWriter(stream, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows({**line, "probability": _probability_text(line["probability"])} for line in lines)
    with translate_os_errors(f"writing {path}"):
        write_atomic(path, stream.getvalue().encode())


def match_rows(submission: Submission, wanted: Mapping[SampleKey, SplitPart]) -> dict[SampleKey, float]:
    """Return the probability of each sample; 0 for a segmentation, which has maps.

    Parameters
    ----------
    submission : Submission
    wanted : mapping of SampleKey to part
        All samples of validation and test.

    Raises
    ------
    HephaestusError
        If a sample is missing, stands twice or is unknown, or a probability is none; with the number of each.
    """
    found: dict[SampleKey, float] = {}
    faults = _Faults()
    scored = submission.header.task == "classification"
    for key, part, given in submission.rows:
        if key not in wanted:
            faults.add("unknown", key)
        elif key in found:
            faults.add("twice", key)
        elif part and part != wanted[key]:
            faults.add("part", key)
            found[key] = math.nan
        else:
            found[key] = _parse_probability(given) if scored else 0.0
            if math.isnan(found[key]):
                faults.add("number", key)
            elif not 0 <= found[key] <= 1:
                faults.add("range", key)
    for key in wanted:
        if key not in found:
            faults.add("missing", key)
    if faults.counts:
        raise HephaestusError(
            f"{submission.path}: {faults.describe(len(wanted))}; `hephaestus benchmark template` writes a "
            "file with all samples to be filled in"
        )
    return found


class _Faults:
    """Faults of the rows of a submission, counted by kind, with the first of each."""

    _WORDS: Mapping[str, str] = {
        "missing": "missing",
        "twice": "there more than once",
        "unknown": "unknown",
        "part": "said to be of another part than they are",
        "number": "without a number as probability",
        "range": "outside 0 to 1",
    }

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._first: dict[str, SampleKey] = {}

    def add(self, kind: str, key: SampleKey) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self._first.setdefault(kind, key)

    def describe(self, total: int) -> str:
        told = [
            f"{self.counts[kind]} {words} (first: {self._first[kind]})"
            for kind, words in self._WORDS.items()
            if kind in self.counts
        ]
        return f"of {count_of(total, 'sample')}, {', '.join(told)}"


def _wanted_columns(header: SubmissionHeader) -> tuple[str, ...]:
    window = ("row", "column") if header.unit == "window" and header.task == "classification" else ()
    return ("frame", "pair", *window, *(() if header.task == "segmentation" else ("probability",)))


def _read_csv(text: str) -> tuple[SubmissionHeader, Iterator[Mapping[str, Any]]]:
    told: dict[str, str] = {}
    place = 0
    while text.startswith("#", place):
        end = text.find("\n", place)
        line = text[place : end if end >= 0 else len(text)]
        place = end + 1 if end >= 0 else len(text)
        name, colon, value = line[1:].partition(":")
        if len(line) > _MAX_LINE or len(told) >= _MAX_HEADER_LINES or not colon:
            raise ValueError(f"its header has the line {sanitize_text(line, 60)!r}; write '# name: value'")
        if told.setdefault(name.strip(), value.strip()) != value.strip():
            raise ValueError(f"its header has {sanitize_text(name.strip(), 60)} twice")
    if not told:
        raise ValueError("it has no header; the first line is '# format: hephaestus-submission/1'")
    return SubmissionHeader.model_validate(told), _csv_rows(text[place:])


def _csv_rows(body: str) -> Iterator[Mapping[str, Any]]:
    reader = csv.DictReader(io.StringIO(body, newline=""), restkey="", restval=None)
    names = reader.fieldnames or ()
    if len(set(names)) != len(names):
        raise ValueError("a column stands twice")
    yield from reader


def _read_json_lines(text: str) -> tuple[SubmissionHeader, Iterator[Mapping[str, Any]]]:
    lines = (line for line in io.StringIO(text) if line.strip())
    if not (first := next(lines, "")):
        raise ValueError("it is empty")
    return SubmissionHeader.model_validate(_json_object(first)), map(_json_object, lines)


def _json_object(line: str) -> dict[str, Any]:
    value = parse_json(line, limit=_MAX_LINE * _MAX_HEADER_LINES)
    if not isinstance(value, dict):
        raise ValueError(f"the line {sanitize_text(line, 60)!r} is no JSON object")
    return value


def _parse_row(row: Mapping[str, Any], wanted: Sequence[str]) -> tuple[SampleKey, str, Any]:
    if strange := row.keys() - {*_COLUMNS, ""}:
        raise ValueError(
            f"it has a column {sanitize_text(min(strange), 60)!r}; the columns are {', '.join(wanted)} and, "
            "if you like, part"
        )
    if "" in row:
        raise ValueError("a row has more values than there are columns")
    given = {name for name, value in row.items() if value is not None or name == "probability"}
    if lacking := [name for name in wanted if name not in given]:
        raise ValueError(f"a row has no {lacking[0]}; the columns are {', '.join(wanted)}")
    if extra := [name for name in ("row", "column", "probability") if name in row and name not in wanted]:
        raise ValueError(
            f"it has the column {extra[0]}, which its header does not go with; the columns are "
            f"{', '.join(wanted)}"
        )
    frame, pair = (_short_text(row[name]) for name in ("frame", "pair"))
    corner = [_whole_number(row[name]) for name in ("row", "column") if name in wanted]
    return SampleKey(frame, pair, *corner), _short_text(row.get("part") or ""), row.get("probability")


def _short_text(value: Any) -> str:
    return str(value).strip()[:200]


def _whole_number(value: Any) -> int:
    text = _short_text(value)
    if isinstance(value, bool) or not _WHOLE_NUMBER.fullmatch(text):
        raise ValueError(f"{sanitize_text(text, 30)!r} is no row or column of pixels")
    return int(text.partition(".")[0])


def _parse_probability(value: Any) -> float:
    """Return a probability as a number; NaN if it is none."""
    if isinstance(value, bool):
        return math.nan
    if isinstance(value, int | float):
        return float(value)
    text = str(value).strip()
    return float(text) if len(text) < 100 and _NUMBER.fullmatch(text) else math.nan


def _probability_text(value: Any) -> str:
    return "" if value is None else repr(float(value))


def _header_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else sanitize_text(value, 1000)


def _unreadable(path: Path, why: object) -> HephaestusError:
    return HephaestusError(
        f"{path} is no submission that can be read: {sanitize_text(why, 300)}; `hephaestus benchmark "
        "template` writes one to be filled in (docs/scoring.md)"
    )
