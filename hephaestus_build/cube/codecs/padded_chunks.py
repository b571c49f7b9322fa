"""Division of a table into chunks of one shape, the last ones padded with the fill value.

The number of rows of a chunk is fixed, so that appended rows do not change the shape of the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def iter_chunk_positions(table: Sequence[int], chunk: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield the position of every chunk of a table.

    Parameters
    ----------
    table, chunk : sequence of int
        Shapes of the table and of a chunk, with as many dimensions.

    Examples
    --------
    >>> list(iter_chunk_positions((5, 3), (3, 2)))
    [(0, 0), (0, 1), (1, 0), (1, 1)]
    """
    yield from np.ndindex(*(-(-size // length) for size, length in zip(table, chunk, strict=True)))


def split_into_chunks(
    values: npt.NDArray[Any], shape: Sequence[int], fill: Any
) -> Iterator[tuple[tuple[int, ...], npt.NDArray[Any]]]:
    """Yield the position and the values of every chunk, also of those that hold only the fill value.

    Parameters
    ----------
    values : numpy.ndarray
        The table.
    shape : sequence of int
        Shape of a chunk, with as many dimensions as the table.
    fill : scalar
        Value of the cells beyond the table.

    Examples
    --------
    >>> for position, chunk in split_into_chunks(np.arange(5), (3,), -1):
    ...     print(position, chunk)
    (0,) [0 1 2]
    (1,) [ 3  4 -1]
    """
    for position in iter_chunk_positions(values.shape, shape):
        part = values[
            tuple(
                slice(index * length, (index + 1) * length)
                for index, length in zip(position, shape, strict=True)
            )
        ]
        chunk = np.full(tuple(shape), fill, values.dtype)
        chunk[tuple(slice(size) for size in part.shape)] = part
        yield position, chunk
