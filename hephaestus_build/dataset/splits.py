"""Splits: named rules that assign samples to train, validation and test, and the resulting files."""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cache, cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from hephaestus_build.core.atomic_io import translate_os_errors, write_atomic
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frames import Frame, Pair, parse_day
from hephaestus_build.core.registry import load_schema, published_frames
from hephaestus_build.dataset.samples import (
    SERIES_LENGTH,
    Sample,
    Series,
    count_classes,
    is_published,
    make_series,
)

SplitPart = Literal["train", "validation", "test"]
PARTS: tuple[SplitPart, ...] = ("train", "validation", "test")
SPLIT_FORMAT = "hephaestus-split/1"
#: Key in a split's source if its cubes are marked as simulated although their frames are real.
SIMULATED_SOURCE = "simulated"
#: Two series with deformation share fewer samples than this, by part (the paper's rule).
SHARED_POSITIVE_LIMIT: Mapping[SplitPart, int] = {"train": 2, "validation": 1, "test": 1}


@dataclass(frozen=True)
class SplitRule:
    """A named rule that assigns a sample to a part by its frame and dates only.

    It uses neither other samples nor the label.

    Attributes
    ----------
    name : str
        Name of the split.
    version : int
        Version of the rule.
    rule : str
        Description of the rule.
    kind : str
        ``primary``: the primary date decides. ``both``: both dates must be in the time window of a part.
        ``region``: the frame's region decides.
    promises : tuple of str
        Guarantees. ``acquisitions``, ``events``, ``regions``: none of them is in two parts. ``boundaries``:
        no pair extends beyond the time window of its part. ``places``: no deformation of test overlaps that
        of train.
    boundaries : tuple of datetime.date
        First day of validation and first day of test.
    regions : mapping
        Boundaries of regions that differ from `boundaries`.
    period : tuple of datetime.date or None
        First and last primary date; samples outside are left out.
    held_out, validating : frozenset of str
        For the kind ``region``: regions of test and of validation.
    seen_places : frozenset of (frame id, pair name)
        Samples left out because they show deformation at a place of train.
    published_only : bool
        Whether samples are left out that the published benchmark does not have: real frames other than the
        38, and the pairs of :func:`~hephaestus_build.dataset.samples.published_absent_pairs`.
    legacy : bool
        Whether the split is kept only for comparison with published numbers.
    """

    name: str
    version: int
    rule: str
    kind: Literal["primary", "both", "region"]
    promises: tuple[str, ...] = ()
    boundaries: tuple[date, date] = (date.max, date.max)
    regions: Mapping[str, tuple[date, date]] = field(default_factory=dict)
    period: tuple[date, date] | None = None
    held_out: frozenset[str] = frozenset()
    validating: frozenset[str] = frozenset()
    seen_places: frozenset[tuple[str, str]] = frozenset()
    published_only: bool = False
    legacy: bool = False

    def part_of(self, sample: Sample) -> tuple[SplitPart | None, str]:
        """Return the part of `sample` and an empty string, or None and the reason why it is left out."""
        if self.kind == "region":
            if sample.region in self.held_out:
                return "test", ""
            return ("validation" if sample.region in self.validating else "train"), ""
        primary, secondary = sample.pair.dates
        if self.published_only and not is_published(sample.frame, sample.pair):
            return None, "not in the published benchmark"
        if self.period and not self.period[0] <= primary <= self.period[1]:
            return None, f"primary date beyond {self.period[0]} to {self.period[1]}"
        for part in PARTS:
            start, end = self.window(part, sample.region)
            if start <= primary < end:
                if self.kind == "both" and secondary >= end:
                    return None, "spans a boundary"
                if (sample.frame.id, sample.pair.name) in self.seen_places:
                    return None, "shows deformation where train does"
                return part, ""
        raise AssertionError("the time windows cover all days")

    def window(self, part: SplitPart, region: str) -> tuple[date, date]:
        """Return the time window of `part` in `region`: its first day and the first day after it."""
        if self.kind == "region":
            return date.min, date.max
        validation, test = self.regions.get(region, self.boundaries)
        return {
            "train": (date.min, validation), "validation": (validation, test), "test": (test, date.max),
        }[part]  # fmt: skip


def split_names() -> list[str]:
    """Return the names of all splits; folds have the held-out region as suffix."""
    names = []
    for entry in load_schema("split_rules.json")["splits"]:
        folds = entry.get("folds") or entry.get("groups", ())
        names += [f"{entry['name']}-{fold}" for fold in folds] or [entry["name"]]
    return names


def split_rule(name: str) -> SplitRule:
    """Return the rule called `name`.

    ``volcano-out-<region>`` exists for every region, including regions of frames outside the registry.

    Raises
    ------
    UsageError
        If there is no split of that name.
    """
    for entry in load_schema("split_rules.json")["splits"]:
        fold = name.removeprefix(entry["name"] + "-")
        if entry["kind"] == "region" and fold and fold != name:
            if groups := entry.get("groups"):
                if fold not in groups:
                    continue
                return _rule_from_schema(
                    entry,
                    name,
                    held_out=_group_regions(groups, fold),
                    validating=frozenset(groups[fold]["validation"]),
                )
            first, second = entry["validation"]
            return _rule_from_schema(
                entry,
                name,
                held_out=frozenset([fold]),
                validating=frozenset([second if fold == first else first]),
            )
        if entry["kind"] != "region" and entry["name"] == name:
            return _rule_from_schema(entry, name)
    raise UsageError(f"there is no split {name!r}; `hephaestus splits list` lists all splits")


def _group_regions(groups: Mapping[str, Any], fold: str) -> frozenset[str]:
    """Return the regions of test of a fold; one fold has all published regions that no other fold names."""
    if named := groups[fold]["test"]:
        return frozenset(named)
    elsewhere = {region for group in groups.values() for region in group["test"]}
    return frozenset(frame.region for frame in published_frames().values()) - elsewhere


def _rule_from_schema(entry: Mapping[str, Any], name: str, **fields: Any) -> SplitRule:
    for key in ("boundaries", "period"):
        if key in entry:
            fields[key] = _days(entry[key])
    return SplitRule(
        name=name,
        version=entry["version"],
        rule=entry["rule"],
        kind=entry["kind"],
        promises=tuple(entry["promises"]),
        regions={region: _days(value) for region, value in entry.get("regions", {}).items()},
        seen_places=_read_pairs(entry["left_out"]) if "left_out" in entry else frozenset(),
        published_only=entry.get("published_only", False),
        legacy=entry.get("legacy", False),
        **fields,
    )


@cache
def _read_pairs(name: str) -> frozenset[tuple[str, str]]:
    frames = load_schema(name)["pairs"]
    return frozenset((frame, pair) for frame, pairs in frames.items() for pair in pairs)


def _days(texts: Sequence[str]) -> tuple[date, date]:
    first, second = texts
    return parse_day(first), parse_day(second)


@dataclass(frozen=True, repr=False)
class Split:
    """The samples of every part of a split, as training reads them.

    Attributes
    ----------
    name, version, rule, promises
        Properties of the rule that made it (see :class:`SplitRule`).
    parts : mapping of part to tuple of Sample
        Samples of each part, sorted by frame and dates.
    left_out : mapping of str to tuple of Sample
        Usable samples in no part, by the reason.
    source : mapping
        Description of the annotations or cubes that the samples come from.
    series_length : int
        Number of interferograms in a series.
    """

    name: str
    version: int
    rule: str
    promises: tuple[str, ...]
    parts: Mapping[SplitPart, tuple[Sample, ...]]
    left_out: Mapping[str, tuple[Sample, ...]] = field(default_factory=dict)
    source: Mapping[str, str | int] = field(default_factory=dict)
    series_length: int = SERIES_LENGTH

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(self.parts[part])} {part}" for part in PARTS)
        return f"<Split {self.name} version {self.version}: {counts}>"

    @cached_property
    def series(self) -> Mapping[SplitPart, tuple[Series, ...]]:
        """The series of every part, sorted."""
        return {
            part: tuple(
                make_series(
                    self.parts[part], length=self.series_length, share_positive=SHARED_POSITIVE_LIMIT[part]
                )
            )
            for part in PARTS
        }

    @cached_property
    def sha256(self) -> str:
        """Hash of the name, the version, and every sample and series with its part and label."""
        digest = hashlib.sha256(f"{self.name} {self.version} {self.series_length}\n".encode())
        for part in PARTS:
            for sample in self.parts[part]:
                digest.update(f"{part} {sample.frame} {sample.pair} {int(sample.positive)}\n".encode())
            for series in self.series[part]:
                digest.update(f"{part} {series.members[0].frame} {series.name}\n".encode())
        return digest.hexdigest()

    @property
    def counts(self) -> dict[str, dict[str, dict[str, int]]]:
        """Number of positive and negative samples and series of each part."""
        return {
            part: {"single": count_classes(self.parts[part]), "series": count_classes(self.series[part])}
            for part in PARTS
        }

    @property
    def samples_with_parts(self) -> Iterator[tuple[SplitPart, Sample]]:
        """Every sample with its part."""
        for part in PARTS:
            for sample in self.parts[part]:
                yield part, sample

    @property
    def all_samples(self) -> set[Sample]:
        """Every sample, in a part or left out."""
        return {*chain(*self.parts.values(), *self.left_out.values())}

    @property
    def is_simulated(self) -> bool:
        """Whether any sample is simulated, according to its frame or to the attributes of its cube."""
        return SIMULATED_SOURCE in self.source or any(
            sample.frame.is_simulated for sample in self.all_samples
        )

    def to_json(self) -> dict[str, Any]:
        """Return the split as JSON values (``schemas/splits.json``)."""
        return {
            "format": SPLIT_FORMAT,
            "name": self.name,
            "version": self.version,
            "sha256": self.sha256,
            "rule": self.rule,
            "promises": list(self.promises),
            "series_length": self.series_length,
            "source": dict(self.source),
            "simulated": self.is_simulated,
            "counts": self.counts,
            "regions": {sample.frame.id: sample.region for sample in sorted(self.all_samples)},
            "parts": {part: _by_frame(self.parts[part]) for part in PARTS},
            "series": {part: _by_frame(self.series[part]) for part in PARTS},
            "left_out": {reason: _by_frame(samples) for reason, samples in self.left_out.items()},
        }

    def write(self, path: Path) -> None:
        """Write the split to `path` atomically.

        Raises
        ------
        HephaestusError
            If the file cannot be written.
        """
        with translate_os_errors(f"split {self.name}: writing {path}"):
            write_atomic(path, (json.dumps(self.to_json(), indent=1) + "\n").encode())


def make_split(
    rule: SplitRule,
    samples: Iterable[Sample],
    *,
    source: Mapping[str, str | int] | None = None,
    length: int = SERIES_LENGTH,
) -> Split:
    """Return the split of `samples` by `rule`.

    Parameters
    ----------
    rule : SplitRule
        The rule.
    samples : iterable of Sample
        Usable samples, in any order.
    source : mapping, optional
        Description of where the samples come from, recorded in the split.
    length : int
        Number of interferograms in a series.
    """
    parts: dict[SplitPart, list[Sample]] = {part: [] for part in PARTS}
    left_out: dict[str, list[Sample]] = defaultdict(list)
    for sample in sorted(samples):
        part, reason = rule.part_of(sample)
        (parts[part] if part else left_out[reason]).append(sample)
    return Split(
        rule.name,
        rule.version,
        rule.rule,
        rule.promises,
        {part: tuple(members) for part, members in parts.items()},
        {reason: tuple(members) for reason, members in sorted(left_out.items())},
        source or {},
        length,
    )


def read_split(path: str | os.PathLike[str]) -> Split:
    """Read the file of a split and verify its format and its hash.

    Parameters
    ----------
    path : str or path
        Path of a file written by ``hephaestus splits write``.

    Raises
    ------
    HephaestusError
        If the file is missing, damaged, or was changed after it was written.
    """
    path = Path(path)
    hint = "write it again with `hephaestus splits write`"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != SPLIT_FORMAT:
            raise ValueError(f"its format is {content['format']}, not {SPLIT_FORMAT}")
        regions = content["regions"]
        split = Split(
            content["name"],
            content["version"],
            content["rule"],
            tuple(content["promises"]),
            {part: _parse_members(content["parts"][part], regions) for part in PARTS},
            {reason: _parse_members(value, regions) for reason, value in content["left_out"].items()},
            content["source"],
            content["series_length"],
        )
    except OSError as error:
        raise HephaestusError(f"there is no split at {path} ({error.strerror}); {hint}") from error
    except (ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
        raise HephaestusError(f"the split {path} cannot be read ({error}); {hint}") from error
    if split.to_json() != content:
        raise HephaestusError(f"the split {path} was changed after it was written; {hint}")
    return split


def _by_frame(items: Iterable[Sample | Series]) -> dict[str, dict[str, list[str]]]:
    frames: dict[str, dict[str, list[str]]] = {}
    for item in items:
        frame = item.frame if isinstance(item, Sample) else item.members[0].frame
        entry = frames.setdefault(frame.id, {"positive": [], "negative": []})
        name = item.pair.name if isinstance(item, Sample) else item.name
        entry["positive" if item.positive else "negative"].append(name)
    return frames


def _parse_members(
    frames: Mapping[str, Mapping[str, Sequence[str]]], regions: Mapping[str, str]
) -> tuple[Sample, ...]:
    return tuple(
        sorted(
            Sample(Frame(name), Pair.parse(pair), sign == "positive", region=regions.get(name, ""))
            for name, signs in frames.items()
            for sign, pairs in signs.items()
            for pair in pairs
        )
    )
