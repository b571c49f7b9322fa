"""Which samples an epoch sees, in which order: pure functions of seed and epoch, whoever asks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from torch.utils.data import Sampler

from hephaestus_baselines.data.dataset_items import SampleDraw


def derive_seed(*numbers: int) -> int:
    """Return a seed of 63 bits that follows from `numbers`, unlike that of any others."""
    # numpy takes (1,) and (1, 0) for one
    return int(np.random.SeedSequence((len(numbers), *numbers)).generate_state(1, np.uint64)[0] >> 1)


def draw_epoch(positive: Sequence[bool], seed: int, epoch: int, *, balance: bool = True) -> list[SampleDraw]:
    """Return what an epoch draws, shuffled.

    Parameters
    ----------
    positive : sequence of bool
        Of each item, whether it shows deformation.
    seed, epoch : int
        The draws are a pure function of these: a run that is resumed sees what it would have seen.
    balance : bool
        All positives and as many negatives, no negative more often than another by more than once. Else
        every item once. Where one kind is absent there is nothing to balance.
    """
    chance = np.random.default_rng((seed, epoch))
    flags = np.asarray(positive, dtype=bool)
    chosen = np.arange(flags.size)
    deforming, quiet = np.flatnonzero(flags), np.flatnonzero(~flags)
    if balance and deforming.size and quiet.size:
        rounds = -(-deforming.size // quiet.size)
        order = np.concatenate([chance.permutation(quiet) for _ in range(rounds)])
        chosen = np.concatenate([deforming, order[: deforming.size]])
    chance.shuffle(chosen)
    seeds = chance.integers(2**32, size=chosen.size)
    return [SampleDraw(int(index), int(own)) for index, own in zip(chosen, seeds, strict=True)]


def split_evenly(draws: Sequence[SampleDraw], count: int) -> list[list[SampleDraw]]:
    """Cut `draws` into `count` batches whose sizes differ by one at most.

    So none is dropped, and there is no last batch of one, which batch normalisation cannot take.
    """
    edges = [len(draws) * place // count for place in range(count + 1)]
    return [list(draws[start:end]) for start, end in pairwise(edges)]


class EpochBatchSampler(Sampler[list[SampleDraw]]):
    """The batches of one epoch after the other, for a DataLoader's ``batch_sampler``.

    Parameters
    ----------
    positive : sequence of bool
        Of each item.
    seed : int
    batch_size : int
        Most draws in a batch.
    balance : bool
        See :func:`draw_epoch`.
    rank, devices : int
        Which of the devices that train together this is for: each sees its own share of the same epoch.
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
        """Where Lightning looks for ``set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[list[SampleDraw]]:
        yield from split_evenly(self._draws()[self.rank :: self.devices], self._count)

    def _draws(self) -> list[SampleDraw]:
        return draw_epoch(self.positive, self.seed, self.epoch, balance=self.balance)


def stratified_subset(positive: Sequence[bool], limit: int) -> list[int]:
    """Return at most `limit` items, evenly spread over positives and over negatives, in order.

    Half of them positives, or all of these where they are fewer; and the other way about.
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
    """Return the labels dealt out at random: the control that a model must not learn from.

    True positives and true negatives get the same share of them, so that dealt labels say nothing about the
    true ones, not even by the accident of a small sample.
    """
    flags = np.asarray(positive, dtype=bool)
    chance = np.random.default_rng((seed, 2**32))  # not one of an epoch
    order = np.concatenate(
        [chance.permutation(np.flatnonzero(flags)), chance.permutation(np.flatnonzero(~flags))]
    )
    result = np.zeros(flags.size, dtype=bool)
    # every so many in that order, from true positives to true negatives
    total = int(flags.sum())
    result[
        order[
            (np.arange(total) * flags.size + int(chance.integers(flags.size))) // max(total, 1) % flags.size
        ]
    ] = True
    return [bool(flag) for flag in result]
