"""Samplers: the samples of an epoch and their order, as pure functions of seed and epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from torch.utils.data import Sampler

from hephaestus_baselines.data.dataset_items import SampleDraw


def derive_seed(*numbers: int) -> int:
    """Return a 63-bit seed derived from `numbers`; different numbers give different seeds."""
    # numpy seeds (1,) and (1, 0) alike, so the length is included
    return int(np.random.SeedSequence((len(numbers), *numbers)).generate_state(1, np.uint64)[0] >> 1)


def draw_epoch(positive: Sequence[bool], seed: int, epoch: int, *, balance: bool = True) -> list[SampleDraw]:
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
    """
    rng = np.random.default_rng((seed, epoch))
    flags = np.asarray(positive, dtype=bool)
    chosen = np.arange(flags.size)
    deforming, quiet = np.flatnonzero(flags), np.flatnonzero(~flags)
    if balance and deforming.size and quiet.size:
        rounds = -(-deforming.size // quiet.size)
        order = np.concatenate([rng.permutation(quiet) for _ in range(rounds)])
        chosen = np.concatenate([deforming, order[: deforming.size]])
    rng.shuffle(chosen)
    seeds = rng.integers(2**32, size=chosen.size)
    return [SampleDraw(int(index), int(own)) for index, own in zip(chosen, seeds, strict=True)]


def split_evenly(draws: Sequence[SampleDraw], count: int) -> list[list[SampleDraw]]:
    """Cut `draws` into `count` batches whose sizes differ by one at most.

    No draw is dropped, and there is no last batch of one sample, which batch normalisation cannot process.
    """
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
    balance : bool
        See :func:`draw_epoch`.
    rank, devices : int
        Index of this device and number of devices that train together; each gets its own share of the epoch.
    """

    def __init__(
        self,
        positive: Sequence[bool],
        seed: int,
        batch_size: int,
        *,
        balance: bool = True,
        rank: int = 0,
        devices: int = 1,
    ) -> None:
        self.positive, self.seed, self.balance = tuple(positive), seed, balance
        self.rank, self.devices, self.epoch = rank, devices, 0
        self._count = -(-len(self._draws()) // (batch_size * devices))

    @property
    def sampler(self) -> EpochBatchSampler:
        """The object on which Lightning calls ``set_epoch``: the batch sampler itself."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the next epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[list[SampleDraw]]:
        yield from split_evenly(self._draws()[self.rank :: self.devices], self._count)

    def _draws(self) -> list[SampleDraw]:
        return draw_epoch(self.positive, self.seed, self.epoch, balance=self.balance)


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
