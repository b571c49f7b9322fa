"""Curves of detection of places that have something in common, and the limits of single interferograms."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hephaestus_baselines.detectability.detectability_report import InjectedPlace, InterferogramLimits
from hephaestus_baselines.detectability.detection_limits import (
    LIMIT_SHARES,
    MIN_PLACES,
    DetectionCurve,
    trace_detection_curve,
    unknown_limit,
)
from hephaestus_build.core.plain_text import count_of

#: Largest displacements in line of sight that are tried, metres: a tenth of a fringe to eleven.
DISPLACEMENTS = (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
#: Names of the thirds of extent and coherence.
_THIRDS = ("lower", "middle", "upper")


@dataclass(frozen=True)
class PlaceGroups:
    """All places, and how alarms are raised.

    Attributes
    ----------
    places : sequence of InjectedPlace
    threshold : float
        Windows with a higher score raise an alarm.
    fringe : float
        Displacement of one fringe, metres.
    seed : int
        Seed of the resampling.
    """

    places: Sequence[InjectedPlace]
    threshold: float
    fringe: float
    seed: int

    def trace(self, chosen: Sequence[InjectedPlace], *, each_place: bool = False) -> DetectionCurve:
        """Return the curve of some places.

        Parameters
        ----------
        chosen : sequence of InjectedPlace
        each_place : bool
            Whether intervals resample places, as within one interferogram, and not primary acquisitions.
        """
        names: list[object] = [(place.frame, place.pairs[0][:8]) for place in chosen]
        if each_place:
            names = list(range(len(chosen)))
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        return trace_detection_curve(
            DISPLACEMENTS,
            np.array([[score > self.threshold for score in place.scores] for place in chosen]),
            np.array([place.quiet_score > self.threshold for place in chosen]),
            np.array([numbers[name] for name in names]),
            self.fringe,
            seed=self.seed,
        )

    def by_name(self, name: Callable[[InjectedPlace], str]) -> dict[str, DetectionCurve]:
        """Return the curves of the places with each name."""
        groups: dict[str, list[InjectedPlace]] = defaultdict(list)
        for place in self.places:
            groups[name(place)].append(place)
        return {key: self.trace(groups[key]) for key in sorted(groups)}

    def by_thirds(self, values: Sequence[float], unit: str) -> dict[str, DetectionCurve]:
        """Return the curves of the places with the lowest, middle and highest third of a value."""
        order = np.argsort(values, kind="stable")
        thirds = {}
        for name, part in zip(_THIRDS, np.array_split(order, len(_THIRDS)), strict=True):
            if len(part):
                low, high = (
                    np.format_float_positional(values[place], precision=2, fractional=False, trim="-")
                    for place in (part[0], part[-1])
                )
                title = f"{name}: {low}-{high} {unit}".strip()
                thirds[title] = self.trace([self.places[index] for index in part])
        return thirds

    def by_interferogram(self) -> list[InterferogramLimits]:
        """Return the limits of each interferogram, or series, that has a place, by frame and date."""
        groups: dict[tuple[str, tuple[str, ...]], list[InjectedPlace]] = defaultdict(list)
        for place in self.places:
            groups[place.frame, place.pairs].append(place)
        return [self._limits_of(frame, pairs, groups[frame, pairs]) for frame, pairs in sorted(groups)]

    def _limits_of(
        self, frame: str, pairs: tuple[str, ...], places: Sequence[InjectedPlace]
    ) -> InterferogramLimits:
        if len(places) < MIN_PLACES:
            note = f"not enough cases: {count_of(len(places), 'place')} of at least {MIN_PLACES}"
            limits = [unknown_limit(share, note) for share in LIMIT_SHARES]
        else:
            limits = self.trace(places, each_place=True).limits
        return InterferogramLimits(
            frame=frame,
            pairs=list(pairs),
            places=len(places),
            false_alarms=sum(place.quiet_score > self.threshold for place in places),
            limits=limits,
        )
