"""Means and standard deviations of the input channels over the training samples of a split.

The moments of every product (an interferogram, the atmosphere of a date, a DEM) are computed once and stored
with the hash of its content. Channel statistics are merged from them (:mod:`.running_moments`). Updating the
statistics of a cube that has grown therefore reads only its new products, with the same result as computing
everything again.

Example: a training sample sees the DEM of its frame, its own phase and coherence, and the atmosphere of its
two dates. If two samples of a frame share a primary date, the DEM and the atmosphere of that date have the
weight 2, all other products the weight 1.
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
import numpy.typing as npt
import xarray as xr

from hephaestus_build.core.atomic_io import translate_os_errors, write_atomic
from hephaestus_build.core.concurrency import map_bounded
from hephaestus_build.core.embedded_hash import add_json_hash, parse_hashed_json
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Frame, Pair, parse_day
from hephaestus_build.core.parsing import read_bounded
from hephaestus_build.core.progress import NullListener, ProgressListener
from hephaestus_build.cube.codecs.image_encoder import split_object_name
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.storage.frame_folder import PROVENANCE
from hephaestus_build.cube.storage.generations import Generation
from hephaestus_build.dataset.running_moments import (
    DATE_CHANNELS,
    MASKING_CONVENTIONS,
    MEASURED_CHANNELS,
    PAIR_CHANNELS,
    MaskingConvention,
    ProductMoments,
    RunningMoments,
    compute_product_moments,
)
from hephaestus_build.dataset.samples import Sample
from hephaestus_build.dataset.splits import Split

STATISTICS_FORMAT = "hephaestus-statistics/1"
_LARGEST = 256 << 20  # maximum size of a file of statistics in bytes


@dataclass(frozen=True)
class ChannelStatistics:
    """Moments of the products in the training part of one split.

    Attributes
    ----------
    split, sha256 : str
        Name and hash of the split.
    simulated : bool
        Whether any of the data are simulated.
    products : mapping
        Moments by frame id and product: ``<channel>/<pair or date>``, or ``dem``.
    weights : mapping
        Number of training samples that see each product, by frame id and product.
    missing : mapping of str to int
        Number of training samples that no available cube contains, by frame id.
    """

    split: str
    sha256: str
    simulated: bool
    products: Mapping[str, Mapping[str, ProductMoments]] = field(default_factory=dict)
    weights: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    missing: Mapping[str, int] = field(default_factory=dict)

    def moments_by_channel(self, convention: MaskingConvention = "valid") -> dict[str, RunningMoments]:
        """Return the moments of every channel over the training samples.

        A product counts once for every sample that sees it.

        Parameters
        ----------
        convention : {"valid", "published"}
            ``valid`` counts only pixels with data. ``published`` also counts the zeros of phase and
            coherence, like the statistics that were published with the data set.
        """
        merged = dict.fromkeys(MEASURED_CHANNELS, RunningMoments())
        for frame, weights in sorted(self.weights.items()):
            for product, weight in sorted(weights.items()):
                channel = product.partition("/")[0]
                merged[channel] += self.products[frame][product].for_convention(convention).repeated(weight)
        return merged

    def to_json(self) -> dict[str, Any]:
        """Return the statistics, with weights and moments of all products, as JSON values."""
        return {
            "format": STATISTICS_FORMAT,
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
        """Write the statistics to `path` atomically.

        Raises
        ------
        HephaestusError
            If the file cannot be written.
        """
        with translate_os_errors(f"statistics of {self.split}: writing {path}"):
            write_atomic(path, add_json_hash(json.dumps(self.to_json()).encode()))


def read_statistics(path: Path) -> ChannelStatistics:
    """Read a file that :meth:`ChannelStatistics.write` wrote.

    Raises
    ------
    HephaestusError
        If the file is missing or damaged. It contains a hash, so any change is detected.
    """
    hint = "remove the file and compute them with `hephaestus statistics update`"
    try:
        content = parse_hashed_json(read_bounded(path, _LARGEST))
        if content["format"] != STATISTICS_FORMAT:
            raise ValueError(f"its format is {content['format']}, not {STATISTICS_FORMAT}")
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
    """Return the number of samples that see each product; all samples must be of one frame."""
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
    """Compute the channel statistics of the training part of a split.

    Parameters
    ----------
    split : Split
        The split; only its training part is read.
    cubes : pathlib.Path or mapping of frame id to pathlib.Path
        Folder of the cubes, or the store of each cube. Samples that no cube contains are counted as missing.
    previous : ChannelStatistics, optional
        Earlier statistics, of any split. The moments of products with unchanged content are reused.
    threads : int
        Number of products that are processed in parallel.
    listener : ProgressListener, optional
        Receives the progress.

    Returns
    -------
    ChannelStatistics
        Moments and weights of all products that were found.
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
    listener.stage(f"{frame}: images", len(todo))
    for _ in map_bounded(work, todo, threads):
        listener.advance(f"{frame}: images")
    return dict(sorted(result.items()))


def read_product(cube: xr.Dataset, product: str) -> npt.NDArray[Any]:
    """Return the values of a product, ``<channel>/<pair or date>`` or ``dem``; shape (rows, columns)."""
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
    """Return the hash of every product's content from the cube's record; empty for a cube without record."""
    if not (store / PROVENANCE).is_file():
        return {}
    marks: dict[str, str] = {}
    for unit in Generation(0, store).read_inventory().granules.values():
        for name, stored in sorted(unit.objects.items()):
            channel, strip = split_object_name(name)
            if channel in MEASURED_CHANNELS:
                product = "dem" if channel == "dem" else f"{channel}/{unit.name}"
                marks[product] = f"{marks.get(product, '')} {strip}:{stored.digest}".lstrip()
    return marks
