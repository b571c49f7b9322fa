"""The number of reader processes of a run, by the machine."""

from __future__ import annotations

import os

import torch

from hephaestus_baselines.config.run_config import Recipe

#: More readers than this gain nothing: a GPU is kept busy by fewer.
_MOST_READERS = 16
#: Batches that a reader has in shared memory at once: two finished ones and the one that it reads.
_BATCHES_OF_READER = 3


def count_readers(recipe: Recipe, device: torch.device) -> int:
    """Return the number of reader processes of a run, which does not change its results.

    It is that of the recipe, or with ``auto`` chosen by the cores that this run may use, and by the shared
    memory that is free.
    """
    if recipe.workers != "auto":
        return recipe.workers
    # phase as float32, coherence in bytes, mask, DEM of windows that travel with it
    batch = recipe.samples_per_step * recipe.size**2 * (recipe.steps * 6 + 5)
    return choose_reader_count(torch.get_num_threads(), device.type, _free_shared_memory(), batch)


def choose_reader_count(cores: int, device_type: str, shared_memory: int | None, batch_bytes: int) -> int:
    """Return a number of reader processes.

    Parameters
    ----------
    cores : int
        Cores that the run may use.
    device_type : str
        Beside a GPU all cores but two read; on a CPU the model needs them, and one core in four reads.
    shared_memory : int or None
        Free shared memory, bytes; None if it is unknown. At most half of it is used.
    batch_bytes : int
        Size of a batch.

    Examples
    --------
    >>> [choose_reader_count(cores, "cuda", None, 1) for cores in (1, 2, 4, 16, 64)]
    [1, 1, 2, 14, 16]
    >>> [choose_reader_count(cores, "cpu", None, 1) for cores in (1, 2, 4, 16, 64)]
    [0, 0, 1, 4, 4]
    """
    wanted = max(1, min(cores - 2, _MOST_READERS)) if device_type == "cuda" else min(cores // 4, 4)
    if shared_memory is None:
        return wanted
    return min(wanted, shared_memory // 2 // (_BATCHES_OF_READER * batch_bytes))


def _free_shared_memory() -> int | None:
    try:
        facts = os.statvfs("/dev/shm")
    except (OSError, AttributeError):
        return None
    return facts.f_bavail * facts.f_frsize
