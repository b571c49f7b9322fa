"""Means and deviations of the channels over what a model may learn from: the training samples alone.

Every product (an interferogram, a date's atmosphere, a DEM) is measured once and kept with the hash of its
content; a mean is merged from these. So a grown cube costs only its new products, and the result is the
same as if all had been measured anew.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from hephaestus_build.core.atomic_io import translate_os_errors, write_atomic
from hephaestus_build.core.concurrency import map_bounded
from hephaestus_build.core.embedded_hash import add_json_hash, parse_hashed_json
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Frame, Pair, parse_day
from hephaestus_build.core.parsing import read_bounded
from hephaestus_build.core.progress import NullListener, ProgressListener
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.storage.frame_folder import PROVENANCE
from hephaestus_build.cube.storage.generations import Generation
from hephaestus_build.dataset.running_moments import (
    CHANNELS,
    DATE_CHANNELS,
    MASKING_CONVENTIONS,
    PAIR_CHANNELS,
    MaskingConvention,
    ProductMoments,
    RunningMoments,
    compute_product_moments,
)
from hephaestus_build.dataset.samples import Sample
from hephaestus_build.dataset.splits import Split

FORMAT = "hephaestus-statistics/1"
_LARGEST = 256 << 20  # bytes of a file of statistics


@dataclass(frozen=True)
class ChannelStatistics:
    """Means and deviations of one split's training part.

    Attributes
    ----------
    split, sha256 : str
        Name and hash of the split.
    simulated : bool
        Whether any of it is simulated.
    products : mapping
        What was measured: frame, then ``<channel>/<pair or date>`` (or ``dem``).
    weights : mapping
        How many training samples see each of them.
    missing : mapping of str to int
        Training samples of each frame that no cube here holds.
    """

    split: str
    sha256: str
    simulated: bool
    products: Mapping[str, Mapping[str, ProductMoments]] = field(default_factory=dict)
    weights: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    missing: Mapping[str, int] = field(default_factory=dict)

    def moments_by_channel(self, convention: MaskingConvention = "valid") -> dict[str, RunningMoments]:
        """Return the moments of every channel, as the training samples see it.

        A product counts once for every sample that sees it. ``valid`` takes only pixels that hold data;
        ``published`` also counts the zeros of phase and coherence, as the data set's own figures do.
        """
        merged = dict.fromkeys(CHANNELS, RunningMoments())
        for frame, weights in sorted(self.weights.items()):
            for product, weight in sorted(weights.items()):
                channel = product.partition("/")[0]
                merged[channel] += self.products[frame][product].for_convention(convention).repeated(weight)
        return merged

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "format": FORMAT,
            "split": self.split,
            "sha256": self.sha256,
            "simulated": self.simulated,
            "channels": {
                convention: {
                    name: {"count": item.count, "mean": item.mean, "std": item.std}
                    for name, item in self.moments_by_channel(convention).items()
                    if item.count
                }
                for convention in MASKING_CONVENTIONS
            },
            "missing": dict(self.missing),
            "weights": {frame: dict(weights) for frame, weights in self.weights.items()},
            "products": {
                frame: {
                    name: [
                        item.fingerprint,
                        item.valid.count,
                        item.valid.mean,
                        item.valid.m2,
                        item.zero_count,
                    ]
                    for name, item in products.items()
                }
                for frame, products in self.products.items()
            },
        }

    def write(self, path: Path) -> None:
        """Write everything to `path`, whole or not at all.

        Raises
        ------
        HephaestusError
            If it cannot be written.
        """
        with translate_os_errors(f"statistics of {self.split}: writing {path}"):
            write_atomic(path, add_json_hash(json.dumps(self.to_json()).encode()))


def read_statistics(path: Path) -> ChannelStatistics:
    """Read what :meth:`ChannelStatistics.write` wrote.

    Raises
    ------
    HephaestusError
        If it is missing or damaged, by a single bit too: it is sealed.
    """
    hint = "remove the file and compute them with `hephaestus statistics update`"
    try:
        content = parse_hashed_json(read_bounded(path, _LARGEST))
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']}, not {FORMAT}")
        products = {
            frame: {
                name: ProductMoments(mark, RunningMoments(count, mean, squares), zeros)
                for name, (mark, count, mean, squares, zeros) in items.items()
            }
            for frame, items in content["products"].items()
        }
        return ChannelStatistics(
            content["split"],
            content["sha256"],
            content["simulated"],
            products,
            content["weights"],
            content["missing"],
        )
    except OSError as error:
        raise HephaestusError(
            f"there are no statistics at {path} ({error.strerror}); "
            "compute them with `hephaestus statistics update`"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HephaestusError(f"the statistics at {path} cannot be read ({error}); {hint}") from error


def product_weights(samples: Iterable[Sample]) -> dict[str, int]:
    """Return the products that samples of one frame see, and how many of them see each."""
    weights: Counter[str] = Counter()
    for sample in samples:
        weights.update(f"{channel}/{sample.pair}" for channel in PAIR_CHANNELS)
        weights["dem"] += 1
        for day in sample.pair.dates:
            weights.update(f"{channel}/{day:%Y%m%d}" for channel in DATE_CHANNELS)
    return dict(sorted(weights.items()))


def update_statistics(
    split: Split,
    cubes: Path | Mapping[str, Path],
    previous: ChannelStatistics | None = None,
    *,
    threads: int = 2,
    listener: ProgressListener | None = None,
) -> ChannelStatistics:
    """Measure what the training part of `split` sees in the cubes here.

    Parameters
    ----------
    split : Split
        Only its training part is read.
    cubes : pathlib.Path or mapping of frame id to pathlib.Path
        Folder of the cubes, or each one's store. What no cube holds is counted as missing.
    previous : ChannelStatistics, optional
        Of any split: what it measured is not measured again while the stored content is the same.
    threads : int
        Products worked on at once.
    listener : ProgressListener, optional
        Told how far it is.
    """
    listener = listener or NullListener()
    products: dict[str, Mapping[str, ProductMoments]] = {}
    weights: dict[str, Mapping[str, int]] = {}
    missing: dict[str, int] = {}
    simulated = False
    for frame, group in groupby(split.parts["train"], key=lambda sample: sample.frame):
        members = list(group)
        path = cubes / f"{frame}.zarr" if isinstance(cubes, Path) else cubes.get(frame.id)
        if path is None or not path.exists():
            missing[frame.id] = len(members)
            continue
        known = previous.products.get(frame.id, {}) if previous else {}
        with open_pinned_cube(path, chunks=None) as cube:
            stored = _stored(cube)
            present = [sample for sample in members if sample.pair in stored]
            if len(present) < len(members):
                missing[frame.id] = len(members) - len(present)
            weights[frame.id] = product_weights(present)
            products[frame.id] = _measure_products(frame, cube, weights[frame.id], known, threads, listener)
            simulated |= frame.is_simulated or bool(cube.attrs.get("simulated", False))
    return ChannelStatistics(split.name, split.sha256, simulated, products, weights, missing)


def _measure_products(
    frame: Frame,
    cube: xr.Dataset,
    wanted: Mapping[str, int],
    known: Mapping[str, ProductMoments],
    threads: int,
    listener: ProgressListener,
) -> dict[str, ProductMoments]:
    marks = _product_hashes(Path(cube.encoding["source"]))
    result = {
        name: known[name]
        for name in wanted
        if name in known and marks.get(name) and known[name].fingerprint == marks[name]
    }

    def work(product: str) -> None:
        channel = product.partition("/")[0]
        result[product] = compute_product_moments(
            channel, read_product(cube, product), marks.get(product, "")
        )

    todo = [name for name in wanted if name not in result]
    listener.stage(frame.id, len(todo))
    for _ in map_bounded(work, todo, threads):
        listener.advance(frame.id)
    return dict(sorted(result.items()))


def read_product(cube: xr.Dataset, product: str) -> np.ndarray:
    """Return the values of a product, shape (rows, columns): ``<channel>/<pair or date>`` or ``dem``."""
    channel, _, name = product.partition("/")
    if channel == "dem":
        return cube["dem"].to_numpy()
    if channel in PAIR_CHANNELS:
        pair = Pair.parse(name)
        days = {"primary_date": np.datetime64(pair.primary), "secondary_date": np.datetime64(pair.secondary)}
        return cube[channel].sel(days).to_numpy()
    day = np.datetime64(parse_day(name))
    axis = "primary_date" if (cube["primary_date"] == day).any() else "secondary_date"
    return cube[f"{axis}_{channel}"].sel({axis: day}).to_numpy()


def _stored(cube: xr.Dataset) -> set[Pair]:
    flags = cube["valid_date_pair"].transpose("primary_date", "secondary_date").to_numpy()
    primaries, secondaries = (
        cube[name].to_numpy().astype("datetime64[D]").tolist() for name in ("primary_date", "secondary_date")
    )
    return {Pair(primaries[row], secondaries[column]) for row, column in np.argwhere(flags).tolist()}


def _product_hashes(store: Path) -> dict[str, str]:
    """Return the hash of every product's content, as the cube's own record has them; else nothing."""
    if not (store / PROVENANCE).is_file():
        return {}
    marks = {}
    for unit in Generation(0, store).read_inventory().granules.values():
        for name, stored in unit.objects.items():
            if name in CHANNELS:
                marks["dem" if name == "dem" else f"{name}/{unit.name}"] = stored.digest
    return marks
