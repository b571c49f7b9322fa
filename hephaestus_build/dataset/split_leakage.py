"""Audit of a split: leaks between its parts, class balance, and overlaps of series."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, combinations
from typing import Any

from hephaestus_build.dataset.deformation_events import DeformationEvent, find_same_places
from hephaestus_build.dataset.samples import Sample
from hephaestus_build.dataset.splits import PARTS, Split, SplitPart, SplitRule, split_rule
from hephaestus_build.sources.annotations.record import Annotation

#: A frame or region with more than this fraction of a part's positives is reported as dominant.
DOMINANT_SHARE = 0.25


@dataclass(frozen=True)
class Leak:
    """Acquisitions, events or regions that two parts of a split share, or pairs that cross a boundary.

    Attributes
    ----------
    kind : str
        ``acquisitions``, ``events``, ``regions``, ``places`` or ``boundaries``.
    parts : tuple of str
        The two parts; for boundaries, one part.
    shared : int
        Number of shared acquisitions, events or regions; for boundaries, number of pairs that extend beyond
        the time window of the part; for places, number of interferograms of the later part whose deformation
        overlaps that of the earlier one.
    samples, positives : int
        Number of affected samples in the later part, and how many of them are positive.
    examples : tuple of str
        Up to five shared items, with the number of affected samples, in descending order.
    """

    kind: str
    parts: tuple[str, ...]
    shared: int
    samples: int
    positives: int
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClassBalance:
    """Distribution of the positives of one part over frames and regions.

    Attributes
    ----------
    part : str
        Name of the part.
    positives : int
        Number of positives.
    frames, regions : dict of str to int
        Number of positives by frame and by region, in descending order.
    dominant : tuple of str
        Frames and regions with more than a quarter of the positives.
    new : tuple of str
        Frames with positives in this part but none in train.
    """

    part: str
    positives: int
    frames: dict[str, int]
    regions: dict[str, int]
    dominant: tuple[str, ...]
    new: tuple[str, ...]


@dataclass(frozen=True)
class SeriesOverlap:
    """Number of series of a part, of those that repeat a sample, and of those that share one with another."""

    part: str
    series: int
    repeating: int
    overlapping: int


@dataclass(frozen=True)
class SplitAudit:
    """The result of auditing one split.

    Attributes
    ----------
    split, sha256 : str
        Name and hash of the split.
    counts : dict
        Number of samples and series of each part.
    simulated : bool
        Whether any sample is simulated.
    leaks : tuple of Leak
        Leaks between parts.
    weights : tuple of ClassBalance
        Class balance of each part.
    repeats : tuple of SeriesOverlap
        Overlaps of series of each part.
    promises : dict of str to bool
        Whether each promise of the split is kept.
    unchecked : tuple of str
        Promises that could not be checked.
    """

    split: str
    sha256: str
    counts: dict[str, Any]
    simulated: bool
    leaks: tuple[Leak, ...]
    weights: tuple[ClassBalance, ...]
    repeats: tuple[SeriesOverlap, ...]
    promises: dict[str, bool]
    unchecked: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the split keeps all of its promises that were checked."""
        return all(self.promises.values())

    def to_json(self) -> dict[str, Any]:
        """Return the audit as JSON values."""
        weights = [
            {
                **asdict(weight),
                "frames": [{"frame": name, "positives": count} for name, count in weight.frames.items()],
                "regions": [{"region": name, "positives": count} for name, count in weight.regions.items()],
            }
            for weight in self.weights
        ]
        return {**asdict(self), "weights": weights, "passed": self.passed}


def audit_split(
    split: Split,
    events: Iterable[DeformationEvent] | None = None,
    rule: SplitRule | None = None,
    annotations: Iterable[Annotation] | None = None,
) -> SplitAudit:
    """Find acquisitions, events, regions, places and pairs that leak between the parts of a split.

    Parameters
    ----------
    split : Split
        The split.
    events : iterable of DeformationEvent, optional
        Events from :func:`hephaestus_build.dataset.deformation_events.find_events`. Without them, leaks of
        events are not checked.
    rule : SplitRule, optional
        Rule whose time windows the pairs are checked against; by default the rule with the split's name.
    annotations : iterable of Annotation, optional
        Annotations of the samples. Without them, leaks of places are not checked.

    Returns
    -------
    SplitAudit
        Leaks, class balance and overlaps of series.
    """
    rule = rule or split_rule(split.name)
    leaks = [
        *_find_shared(
            "acquisitions", split, lambda sample: sample.acquisitions, lambda key: f"{key[0]} {key[1]}"
        ),
        *_find_boundary_leaks(split, rule),
        *_find_event_leaks(split, events or ()),
        *_find_shared("regions", split, lambda sample: [sample.region], str),
        *_find_place_leaks(split, annotations or ()),
    ]
    # that validation and test show the same place gives nothing away of what was learnt
    found = {leak.kind for leak in leaks if leak.kind != "places" or leak.parts == ("train", "test")}
    unknown = {"events": events is None, "places": annotations is None}
    unchecked = [promise for promise in split.promises if unknown.get(promise)]
    return SplitAudit(
        split.name,
        split.sha256,
        split.counts,
        split.is_simulated,
        tuple(leaks),
        tuple(_weights(split)),
        tuple(_repeats(split)),
        {promise: promise not in found for promise in split.promises if promise not in unchecked},
        tuple(unchecked),
    )


def _find_shared(kind: str, split: Split, keys: Any, name: Any) -> list[Leak]:
    leaks = []
    held = {part: {key for sample in split.parts[part] for key in keys(sample)} for part in PARTS}
    for first, second in combinations(PARTS, 2):
        if not (shared := held[first] & held[second]):
            continue
        touched = [sample for sample in split.parts[second] if not shared.isdisjoint(keys(sample))]
        weight = Counter(key for sample in touched for key in keys(sample) if key in shared)
        leaks.append(_leak(kind, (first, second), touched, len(shared), _format_top(weight, name)))
    return leaks


def _find_boundary_leaks(split: Split, rule: SplitRule) -> list[Leak]:
    """Return a leak for each part with pairs that extend beyond the part's time window."""
    leaks = []
    for part in PARTS:
        late = []
        for sample in split.parts[part]:
            start, end = rule.window(part, sample.region)
            if sample.pair.primary < start or sample.pair.secondary >= end:
                late.append(sample)
        if late:
            frames = Counter(sample.frame for sample in late)
            leaks.append(_leak("boundaries", (part,), late, len(late), _format_top(frames, str)))
    return leaks


def _find_event_leaks(split: Split, events: Iterable[DeformationEvent]) -> list[Leak]:
    where = {(sample.frame, sample.pair): (part, sample) for part, sample in split.samples_with_parts}
    leaks: dict[tuple[SplitPart, SplitPart], dict[str, list[Sample]]] = defaultdict(dict)
    for event in events:
        seen: dict[SplitPart, list[Sample]] = defaultdict(list)
        for part, sample in (where[member] for member in event.members if member in where):
            seen[part].append(sample)
        for first, second in combinations(PARTS, 2):
            if first in seen and second in seen:
                leaks[first, second][event.id] = seen[second]
    return [
        _leak(
            "events",
            parts,
            sorted(set(chain(*found.values()))),
            len(found),
            _format_top(Counter({name: len(samples) for name, samples in found.items()}), str),
        )
        for parts in combinations(PARTS, 2)
        if (found := leaks.get(parts))
    ]


def _find_place_leaks(split: Split, annotations: Iterable[Annotation]) -> list[Leak]:
    """Return a leak for each two parts whose deformation overlaps on the ground."""
    part_of = {(sample.frame, sample.pair): part for part, sample in split.samples_with_parts}
    held: dict[SplitPart, list[Annotation]] = defaultdict(list)
    for annotation in annotations:
        if part := part_of.get((annotation.frame, annotation.pair)):
            held[part].append(annotation)
    leaks = []
    for first, second in combinations(PARTS, 2):
        same = find_same_places(held[second], held[first])
        touched = [sample for sample in split.parts[second] if (sample.frame, sample.pair) in same]
        if touched:
            frames = Counter(sample.frame for sample in touched)
            leaks.append(_leak("places", (first, second), touched, len(touched), _format_top(frames, str)))
    return leaks


def _leak(
    kind: str, parts: tuple[str, ...], samples: Sequence[Sample], shared: int, examples: tuple[str, ...]
) -> Leak:
    return Leak(kind, parts, shared, len(samples), sum(sample.positive for sample in samples), examples)


def _format_top(counter: Counter[Any], name: Any, limit: int = 5) -> tuple[str, ...]:
    ranked = sorted(counter.items(), key=lambda item: (-item[1], name(item[0])))
    return tuple(f"{name(key)}: {count} samples" for key, count in ranked[:limit])


def _weights(split: Split) -> Iterable[ClassBalance]:
    known = {sample.frame for sample in split.parts["train"] if sample.positive}
    for part in PARTS:
        positives = [sample for sample in split.parts[part] if sample.positive]
        frames = _ranked(Counter(sample.frame.id for sample in positives))
        regions = _ranked(Counter(sample.region for sample in positives))
        counts = {**frames, **regions}  # an unregistered frame may be a region with the same name
        heavy = tuple(name for name, count in counts.items() if count > DOMINANT_SHARE * len(positives))
        new = sorted({sample.frame.id for sample in positives if sample.frame not in known})
        yield ClassBalance(
            part, len(positives), frames, regions, heavy, tuple(new) if part != "train" else ()
        )


def _ranked(counter: Counter[str]) -> dict[str, int]:
    return dict(sorted(counter.items(), key=lambda item: (-item[1], item[0])))


def _repeats(split: Split) -> Iterable[SeriesOverlap]:
    for part in PARTS:
        used = Counter(sample for series in split.series[part] for sample in set(series.members))
        overlapping = sum(any(used[sample] > 1 for sample in series.members) for series in split.series[part])
        repeating = sum(series.has_repeats for series in split.series[part])
        yield SeriesOverlap(part, len(split.series[part]), repeating, overlapping)
