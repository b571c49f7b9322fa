"""What leaks from one part of a split into another, and what weighs too much in it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, combinations
from typing import Any

from hephaestus_build.dataset.deformation_events import DeformationEvent
from hephaestus_build.dataset.samples import Sample
from hephaestus_build.dataset.splits import PARTS, Split, SplitPart, SplitRule, split_rule

#: A frame or region with more than this share of a part's positives is said to dominate it.
DOMINANT_SHARE = 0.25


@dataclass(frozen=True)
class Leak:
    """Something that lies in two parts of a split.

    Attributes
    ----------
    kind : str
        ``acquisitions``, ``events``, ``regions`` or ``boundaries``.
    parts : tuple of str
        The two parts; for boundaries, the part alone.
    shared : int
        How many acquisitions, events or regions both parts have; for boundaries, how many pairs reach
        beyond the part's window.
    samples, positives : int
        Members of the later part that are concerned, and how many of them are positive.
    examples : tuple of str
        A few of what is shared, the weightiest first.
    """

    kind: str
    parts: tuple[str, ...]
    shared: int
    samples: int
    positives: int
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClassBalance:
    """How the positives of one part are spread over its frames and regions.

    Attributes
    ----------
    part : str
    positives : int
    frames, regions : dict of str to int
        Those with positives, the weightiest first.
    dominant : tuple of str
        Frames and regions with more than a quarter of the positives.
    new : tuple of str
        Frames with positives here and none in train.
    """

    part: str
    positives: int
    frames: dict[str, int]
    regions: dict[str, int]
    dominant: tuple[str, ...]
    new: tuple[str, ...]


@dataclass(frozen=True)
class SeriesOverlap:
    """Series of one part: how many hold an interferogram twice, and how many share one with another."""

    part: str
    series: int
    repeating: int
    overlapping: int


@dataclass(frozen=True)
class SplitAudit:
    """The findings on one split.

    Attributes
    ----------
    split, sha256, counts, simulated
        Which split, how many samples and series its parts have, and whether any of it is simulated.
    leaks, weights, repeats : tuple
        What was found.
    promises : dict of str to bool
        Whether each of its promises is kept.
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
        """Whether the split keeps all that it promises, as far as that was checked."""
        return all(self.promises.values())

    def to_json(self) -> dict[str, Any]:
        """Return the findings as JSON values."""
        return {**asdict(self), "passed": self.passed}


def audit_split(
    split: Split, events: Iterable[DeformationEvent] | None = None, rule: SplitRule | None = None
) -> SplitAudit:
    """Look for everything that `split` shares between its parts.

    Parameters
    ----------
    split : Split
        Any split, also one read from a file.
    events : iterable of Event
        From :func:`hephaestus_build.dataset.deformation_events.find_events`; without them nothing is said of
        events.
    rule : SplitRule, optional
        Whose windows the pairs are held against; the one of the split's name unless given.
    """
    rule = rule or split_rule(split.name)
    leaks = [
        *_find_shared(
            "acquisitions", split, lambda sample: sample.acquisitions, lambda key: f"{key[0]} {key[1]}"
        ),
        *_find_boundary_leaks(split, rule),
        *_find_event_leaks(split, events or ()),
        *_find_shared("regions", split, lambda sample: [sample.region], str),
    ]
    found = {leak.kind for leak in leaks}
    unchecked = [promise for promise in split.promises if promise == "events" and events is None]
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
    """Find pairs that reach beyond their part's window: what they show was not yet known at its end."""
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
        counts = {**frames, **regions}  # a region of one unregistered frame has the frame's name
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
