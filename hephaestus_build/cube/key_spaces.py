"""Keys of chunks, and what becomes of them when positions on the axes change.

A reader that opened a cube by name asks for chunks by the keys of the generation that it opened, even if
others have been published since. For a Zarr reader, a chunk that is missing holds the fill value. Hence a key
must keep its meaning from one generation to the next, or lead to an error. Positions rarely change: later
acquisitions are appended. If they do change, the chunks get keys of another encoding, and an object that no
codec decodes is stored at each of the previous keys. For example, when an older date is put in front of the
two dates of an axis::

    before             after
    c.0.0.0  a         c.0.0.0  retired    readers that opened the previous generation get an error
    c.1.0.0  b         c.1.0.0  retired
                       1.0.0    a          the same file as c.0.0.0 before
                       2.0.0    b
"""

from __future__ import annotations

import re
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

#: Content of the objects at retired keys. No compressor of a cube's arrays decodes it.
RETIRED_CHUNK = b"This chunk has another key since a later publication. Open the cube again.\n"
#: Maximum number of retired keys of a cube.
_MAX_RETIRED = 200_000
_CHUNK_KEY = re.compile(
    r"(?:[a-z][a-z0-9_]{0,99}/){1,2}(?:c(?:\.[0-9]{1,7}){0,4}|c(?:/[0-9]{1,7}){1,4}|[0-9]{1,7}(?:\.[0-9]{1,7}){0,3})"
)


def is_chunk_key(key: str) -> bool:
    """Return whether a path in a store is the key of a chunk, in any key space.

    Examples
    --------
    >>> is_chunk_key("overview/coherence/c.3.0.0"), is_chunk_key("dem/zarr.json")
    (True, False)
    """
    return _CHUNK_KEY.fullmatch(key) is not None


def find_array(path: str, arrays: Container[str]) -> str:
    """Return which array the object at `path` belongs to; empty where it belongs to none of them.

    Parameters
    ----------
    path : str
        Path of an object in the store, such as ``overview/coherence/c.3.0.0``.
    arrays : container of str
        Paths of arrays.
    """
    first, _, rest = path.partition("/")
    inner = f"{first}/{rest.partition('/')[0]}"
    return first if first in arrays else inner if inner in arrays else ""


@dataclass(frozen=True)
class KeySpace:
    """An encoding of the keys of chunks; the keys of different ones never coincide.

    Attributes
    ----------
    name, separator : str
        As in the ``chunk_key_encoding`` of an array's metadata.
    """

    name: Literal["default", "v2"]
    separator: Literal[".", "/"]

    def chunk_name(self, leading: Sequence[int], planes: int, last: int = 0) -> str:
        """Return the name of a chunk in the folder of its array.

        Parameters
        ----------
        leading : sequence of int
            Positions along the leading dimensions: dates or a pair.
        planes : int
            Number of trailing dimensions; their position is 0, except that of the last one.
        last : int
            Position along the last dimension: the strip of an image.

        Examples
        --------
        >>> KEY_SPACES[0].chunk_name((3, 5), 2, 1), KEY_SPACES[1].chunk_name((3, 5), 2, 1)
        ('c.3.5.0.1', '3.5.0.1')
        """
        trailing = [*["0"] * (planes - 1), str(last)] if planes else []
        prefix = ["c"] if self.name == "default" else []
        return self.separator.join([*prefix, *map(str, leading), *trailing]) or "0"

    def chunk_key(self, variable: str, leading: Sequence[int], planes: int, last: int = 0) -> str:
        """Return the key of a chunk in the store, such as ``insar_difference/c.3.5.0.2``.

        Parameters
        ----------
        variable : str
            Path of the array.
        leading, planes, last
            See :meth:`chunk_name`.
        """
        return f"{variable}/{self.chunk_name(leading, planes, last)}"

    def split_chunk_name(self, name: str) -> tuple[str, ...]:
        """Return the positions in the name of a chunk, as text; empty if it has another encoding."""
        parts = name.split(self.separator)
        if self.name == "default":
            parts = parts[1:] if parts[0] == "c" else []
        return tuple(parts) if all(part.isascii() and part.isdigit() for part in parts) else ()

    def to_metadata(self) -> dict[str, Any]:
        """Return the ``chunk_key_encoding`` of an array's metadata."""
        return {"name": self.name, "configuration": {"separator": self.separator}}

    @classmethod
    def from_metadata(cls, array: Mapping[str, Any]) -> KeySpace:
        """Return the key space of an array from its ``zarr.json``.

        Raises
        ------
        ValueError
            If no cube has an array with this encoding.
        """
        encoding = array["chunk_key_encoding"]
        default = "/" if encoding["name"] == "default" else "."
        found = encoding["name"], encoding.get("configuration", {}).get("separator", default)
        for space in KEY_SPACES:
            if (space.name, space.separator) == found:
                return space
        raise ValueError("its chunk key encoding is not supported")


#: Key spaces in the order of their use. Dots come first: with slashes, each chunk needs several folders, and
#: creating these takes most of the time of publishing a generation.
KEY_SPACES = (KeySpace("default", "."), KeySpace("v2", "."), KeySpace("default", "/"))


class KeyHistory(msgspec.Struct, frozen=True):
    """The key space of some arrays of a cube, and the keys that were in use before.

    Attributes
    ----------
    index : int
        Position of the key space in :data:`KEY_SPACES`.
    retired : tuple of tuple of str
        For each key space, the keys in the store that had chunks when it was in use. For the one in use,
        those of images that were lost when no other key space was free.
    """

    index: int = 0
    retired: tuple[tuple[str, ...], ...] = ((), (), ())

    @property
    def space(self) -> KeySpace:
        """The key space in use."""
        return KEY_SPACES[self.index]

    @property
    def own_retired(self) -> tuple[str, ...]:
        """Retired keys of the key space in use."""
        return self.retired[self.index]

    @property
    def retired_keys(self) -> tuple[str, ...]:
        """All keys that lead to an error."""
        return tuple(key for keys in self.retired for key in keys)

    def check(self) -> None:
        """Raise ValueError if the record of a cube cannot have this history."""
        if not 0 <= self.index < len(KEY_SPACES) or len(self.retired) != len(KEY_SPACES):
            raise ValueError("it names a key space that does not exist")
        if len(self.retired_keys) > _MAX_RETIRED:
            raise ValueError("its retired keys are not those of a cube")
        for key in self.retired_keys:
            if not is_chunk_key(key):
                raise ValueError(f"{key[:100]!r} is not the key of a chunk")

    def free_spaces(self, others: Collection[int]) -> list[int]:
        """Return the key spaces that may be used next, unused ones first.

        Parameters
        ----------
        others : collection of int
            Key spaces of the generations that are still on disk. A space that was in use may be used
            again once `gc` has removed all generations that use it.
        """
        free = [
            n for n in range(len(KEY_SPACES)) if n != self.index and not (self.retired[n] and n in others)
        ]
        return sorted(free, key=lambda n: (bool(self.retired[n]), n))

    def move(self, index: int, used: Collection[str]) -> KeyHistory:
        """Return the history after a change to another key space.

        Parameters
        ----------
        index : int
            The new key space.
        used : collection of str
            All keys of chunks of the present one.
        """
        retired = list(self.retired)
        retired[self.index] = tuple(sorted({*used, *retired[self.index]}))
        retired[index] = ()
        return KeyHistory(index, tuple(retired))

    def retire(self, keys: Iterable[str], *, stored: Collection[str]) -> KeyHistory:
        """Return the history after some keys of the present key space are retired.

        Parameters
        ----------
        keys : iterable of str
            The keys to retire.
        stored : collection of str
            Keys at which images are stored now; they are no longer retired.
        """
        retired = list(self.retired)
        retired[self.index] = tuple(sorted({*keys, *retired[self.index]}.difference(stored)))
        return KeyHistory(self.index, tuple(retired))
