"""Counts and statistics published in the Hephaestus Minicubes paper, and comparisons with recounted ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from hephaestus_build.dataset.samples import published_absent_pairs
from hephaestus_build.dataset.splits import Split
from hephaestus_build.sources.annotations.record import Annotation

#: Table 1 of the Hephaestus Minicubes paper; deformation and earthquakes are counted separately.
PUBLISHED_TABLE_1: Mapping[str, Mapping[str, int]] = {
    "label": {"Non_Deformation": 18089, "Deformation": 1798, "Earthquake": 55},
    "activity_type": {
        "Sill": 1258, "Dyke": 527, "Mogi": 333, "Earthquake": 55, "Unidentified": 50, "Spheroid": 25,
    },
    "intensity_level": {"Low": 908, "Medium": 533, "High": 751, "None": 55},
    "phase": {"Rest": 18089, "Unrest": 1664, "Rebound": 134, "None": 15},
}  # fmt: skip
#: Table 2 of the paper: number of samples and series of each part.
PUBLISHED_TABLE_2: Mapping[str, Mapping[str, Mapping[str, int]]] = {
    "train": {
        "single": {"positive": 1143, "negative": 8697}, "series": {"positive": 701, "negative": 2626},
    },
    "validation": {
        "single": {"positive": 154, "negative": 2416}, "series": {"positive": 75, "negative": 728},
    },
    "test": {
        "single": {"positive": 509, "negative": 5992}, "series": {"positive": 225, "negative": 1776},
    },
    "sum": {
        "single": {"positive": 1806, "negative": 17105}, "series": {"positive": 1001, "negative": 5130},
    },
}  # fmt: skip

#: Published (mean, standard deviation) of the channels; phase and coherence include the zeros of no data.
PUBLISHED_CHANNEL_STATISTICS: Mapping[str, tuple[float, float]] = {
    "insar_difference": (0.001489616346722796, 1.6176833645747521),
    "insar_coherence": (69.3472689222075, 76.50325808397666),
    "dem": (833.0587512223403, 977.504283216005),
    "total_column_water_vapour": (22.526107385139355, 12.85386775756665),
    "surface_pressure": (92966.61998575741, 9132.050564654619),
    "vertical_integral_of_temperature": (2396036.7821715856, 263503.6556952968),
}


def count_labels(annotations: Iterable[Annotation]) -> dict[str, dict[str, int]]:
    """Return the count of every label of Table 1, in the paper's order, followed by other labels."""
    counts: dict[str, Counter[str]] = {
        name: Counter(dict.fromkeys(words, 0)) for name, words in PUBLISHED_TABLE_1.items()
    }
    for item in annotations:
        counts["label"].update(item.label)
        counts["activity_type"].update(item.activity_type)
        counts["intensity_level"].update(item.intensity_level)
        counts["phase"][item.phase or "missing"] += 1
    return {name: dict(words) for name, words in counts.items()}


def compare_table_1(annotations: Iterable[Annotation]) -> dict[str, Any]:
    """Return Table 1 as published, counted in the files, and counted without the published absent pairs.

    ``difference`` is the count without absent pairs minus the published one; equal counts are omitted.
    """
    items, absent = list(annotations), published_absent_pairs()
    without = count_labels(item for item in items if (item.frame, item.pair) not in absent)
    difference = {
        name: {
            word: count - PUBLISHED_TABLE_1[name].get(word, 0)
            for word, count in words.items()
            if count != PUBLISHED_TABLE_1[name].get(word, 0)
        }
        for name, words in without.items()
    }
    return {
        "paper": {name: dict(words) for name, words in PUBLISHED_TABLE_1.items()},
        "files": count_labels(items),
        "without_absent_pairs": without,
        "difference": {name: words for name, words in difference.items() if words},
        "absent_pairs": sum((item.frame, item.pair) in absent for item in items),
    }


def compare_table_2(split: Split) -> dict[str, Any]:
    """Return the counts of a split and their sum, and the published counts if it is the paper's split."""
    counts: dict[str, Any] = {
        **split.counts,
        "sum": {
            kind: {
                sign: sum(part[kind][sign] for part in split.counts.values())
                for sign in ("positive", "negative")
            }
            for kind in ("single", "series")
        },
    }
    result: dict[str, Any] = {"split": split.name, "sha256": split.sha256, "counts": counts}
    result["simulated"] = split.is_simulated
    result["left_out"] = {reason: len(samples) for reason, samples in split.left_out.items()}
    if split.name == "paper":
        result |= {"paper": PUBLISHED_TABLE_2, "equal": counts == PUBLISHED_TABLE_2}
    return result
