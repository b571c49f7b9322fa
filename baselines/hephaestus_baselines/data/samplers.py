"""Samplers: the samples of an epoch and their order, as pure functions of seed and epoch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from hephaestus_baselines.data.dataset_items import SampleDraw
from hephaestus_baselines.data.packed_batches import WindowsOfPart


def derive_seed(*numbers: int) -> int:
    """Return a 63-bit seed derived from `numbers`; different numbers give different seeds."""
    # numpy seeds (1,) and (1, 0) alike, so the length is included
    return int(np.random.SeedSequence((len(numbers), *numbers)).generate_state(1, np.uint64)[0] >> 1)


def draw_epoch(
    positive: Sequence[bool],
    seed: int,
    epoch: int,
    *,
    balance: bool = True,
    frames: Sequence[str] | None = None,
) -> list[SampleDraw]:
    """Return the draws of an epoch, shuffled.

    Parameters
    ----------
    positive : sequence of bool
        For each item, whether it shows deformation.
    seed, epoch : int
        The draws depend on nothing else, so a resumed run sees the same samples as an uninterrupted one.
    balance : bool
        Draw all positives and as many negatives; the counts of two negatives differ by one at most.
        Otherwise, or if all items are of one kind, draw every item once.
    frames : sequence of str, optional
        Frame of each item: each positive is then matched by a negative of the same frame with the same
        window, so that nothing but the image tells them apart. Frames without a negative take those of
        others, anywhere.
    """
    rng = np.random.default_rng((seed, epoch))
    flags = np.asarray(positive, dtype=bool)
    deforming, quiet = np.flatnonzero(flags), np.flatnonzero(~flags)
    if not (balance and deforming.size and quiet.size):
        chosen = [(index, -1) for index in range(flags.size)]
    elif frames is None:
        rounds = -(-deforming.size // quiet.size)
        order = np.concatenate([rng.permutation(quiet) for _ in range(rounds)])
        chosen = [(int(index), -1) for index in (*deforming, *order[: deforming.size])]
    else:
        chosen = [(int(index), -1) for index in deforming]
        chosen += _match_by_frame(deforming, quiet, np.asarray(frames), rng)
    seeds = rng.integers(2**32, size=flags.size)
    draws = [
        SampleDraw(int(index), int(seeds[index if like < 0 else like]), int(like)) for index, like in chosen
    ]
    return [draws[place] for place in rng.permutation(len(draws))]


def draw_epoch_by_class(
    classes: Sequence[Collection[int]], seed: int, epoch: int, *, balance: bool = True
) -> list[SampleDraw]:
    """Return the draws of an epoch of a task that tells the kind of deformation, shuffled.

    Parameters
    ----------
    classes : sequence of collections of int
        For each item, the classes that it shows; items without any are not drawn.
    seed, epoch : int
        The draws depend on nothing else.
    balance : bool
        Draw each class equally often, as many items in all as show any. Otherwise draw each of these once.
    """
    rng = np.random.default_rng((seed, epoch))
    showing = [index for index, found in enumerate(classes) if found]
    chosen = showing
    if balance and showing:
        present = sorted({kind for found in classes for kind in found})
        members = [
            rng.permutation([index for index in showing if kind in classes[index]]) for kind in present
        ]
        # the classes in turn, each going round its own items
        turns = [divmod(place, len(present)) for place in range(len(showing))]
        chosen = [int(members[kind][turn % len(members[kind])]) for turn, kind in turns]
    seeds = rng.integers(2**32, size=len(chosen))
    draws = [SampleDraw(index, int(drawn)) for index, drawn in zip(chosen, seeds, strict=True)]
    return [draws[place] for place in rng.permutation(len(draws))]


def _match_by_frame(
    deforming: npt.NDArray[Any], quiet: npt.NDArray[Any], frames: npt.NDArray[Any], rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Return a negative for each positive, and the positive whose window it takes; -1 for none."""
    waiting = {
        frame: rng.permutation(quiet[frames[quiet] == frame]) for frame in np.unique(frames[deforming])
    }
    taken = dict.fromkeys(waiting, 0)
    matched = []
    for index in rng.permutation(deforming):
        candidates = waiting[frames[index]]
        if candidates.size:
            place = taken[frames[index]]
            matched.append((int(candidates[place % candidates.size]), int(index)))
            taken[frames[index]] += 1
        else:
            matched.append((int(rng.choice(quiet)), -1))
    return matched


def count_batches(draws: int, batch_size: int, devices: int = 1) -> int:
    """Return the number of batches of each device in an epoch of `draws` draws.

    Batches have at most `batch_size` draws, unless one would have a single draw, which batch normalisation
    cannot process: then some have one draw more. For example, 5 draws in batches of 2 are batches of 2 and 3.
    No device gets an empty batch: of 5 draws in batches of 1, one of two devices has batches of 1 and 2.
    """
    share, largest = draws // devices, -(-draws // devices)
    count = -(-largest // batch_size)
    return max(1, min(count, share // min(batch_size, 2)))


def split_evenly(draws: Sequence[SampleDraw], count: int) -> list[list[SampleDraw]]:
    """Cut `draws` into `count` batches whose sizes differ by one at most; no draw is dropped."""
    edges = [len(draws) * place // count for place in range(count + 1)]
    return [list(draws[start:end]) for start, end in pairwise(edges)]


class EpochBatchSampler(Sampler[list[SampleDraw]]):
    """Batches of successive epochs, for a DataLoader's ``batch_sampler``.

    Parameters
    ----------
    positive : sequence of bool
        For each item, whether it shows deformation.
    seed : int
    batch_size : int
        Maximum number of draws per batch.
    balance, frames
        See :func:`draw_epoch`.
    classes : sequence of collections of int, optional
        For each item, the classes that it shows, for a task that tells the kind of deformation: see
        :func:`draw_epoch_by_class`.
    rank, devices : int
        Index of this device and number of devices that train together; each gets its own share of the epoch.
    epoch : callable
        Returns the number of the epoch that begins. It is asked at the moment at which batches are first
        drawn: readers draw ahead, often before a training loop announces the epoch.
    """

    def __init__(
        self,
        positive: Sequence[bool],
        seed: int,
        batch_size: int,
        *,
        balance: bool = True,
        frames: Sequence[str] | None = None,
        classes: Sequence[Collection[int]] | None = None,
        rank: int = 0,
        devices: int = 1,
        epoch: Callable[[], int] = lambda: 0,
    ) -> None:
        self.positive, self.seed, self.balance, self.frames = tuple(positive), seed, balance, frames
        self.classes = classes
        self.rank, self.devices, self.epoch = rank, devices, epoch
        self._count = count_batches(len(self._draws()), batch_size, devices)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[list[SampleDraw]]:
        yield from split_evenly(self._draws()[self.rank :: self.devices], self._count)

    def _draws(self) -> list[SampleDraw]:
        if self.classes is not None:
            return draw_epoch_by_class(self.classes, self.seed, self.epoch(), balance=self.balance)
        return draw_epoch(self.positive, self.seed, self.epoch(), balance=self.balance, frames=self.frames)


class RunSchedule(Sampler[WindowsOfPart]):
    """All batches of a run in order: in each epoch those of training, then those of validation.

    Parameters
    ----------
    training : EpochBatchSampler
        Its ``epoch`` is replaced: readers draw ahead, so epochs are counted here.
    validation : int
        Number of validation windows, the same in each epoch.
    validation_batch : int
        Maximum number of windows per batch.
    first, epochs : callable, int
        Returns the epoch with which the run begins or goes on, asked when batches are first drawn; number of
        epochs.
    """

    def __init__(
        self,
        training: EpochBatchSampler,
        validation: int,
        validation_batch: int,
        first: Callable[[], int],
        epochs: int,
    ) -> None:
        self.training, self.first, self.epochs = training, first, epochs
        self.validation = [
            list(range(start, min(start + validation_batch, validation)))
            for start in range(0, validation, validation_batch)
        ]

    def __iter__(self) -> Iterator[WindowsOfPart]:
        for epoch in range(self.first(), self.epochs):
            self.training.epoch = lambda epoch=epoch: epoch  # type: ignore[misc]
            for draws in self.training:
                yield WindowsOfPart("train", draws)
            for indices in self.validation:
                yield WindowsOfPart("validation", indices)


def stratified_subset(positive: Sequence[bool], limit: int) -> list[int]:
    """Return at most `limit` items in order, evenly spread over positives and over negatives.

    Half of them are positives; if there are too few of one kind, more of the other are taken.
    """
    flags = np.asarray(positive, dtype=bool)
    kinds = [np.flatnonzero(flags), np.flatnonzero(~flags)]
    positives = min(kinds[0].size, max(limit // 2, limit - kinds[1].size))
    counts = [positives, min(kinds[1].size, limit - positives)]
    chosen = [
        kind[np.arange(count) * kind.size // max(count, 1)] for kind, count in zip(kinds, counts, strict=True)
    ]
    return sorted(int(index) for index in np.concatenate(chosen))


def permute_labels(positive: Sequence[bool], seed: int) -> list[bool]:
    """Return randomly permuted labels, for a control run that must not score above chance.

    True positives and true negatives get the same share of positive labels, so that permuted and true labels
    are uncorrelated even in a small sample.
    """
    flags = np.asarray(positive, dtype=bool)
    rng = np.random.default_rng((seed, 2**32))  # a stream that no epoch uses
    order = np.concatenate([rng.permutation(np.flatnonzero(flags)), rng.permutation(np.flatnonzero(~flags))])
    result = np.zeros(flags.size, dtype=bool)
    # take them at equal steps in an order from true positives to true negatives
    total = int(flags.sum())
    result[
        order[(np.arange(total) * flags.size + int(rng.integers(flags.size))) // max(total, 1) % flags.size]
    ] = True
    return [bool(flag) for flag in result]
