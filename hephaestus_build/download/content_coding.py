"""Content codings: compression of a body in transit, which some servers apply although none was asked for.

The body decides, not the header alone: servers also state codings that they did not apply, and Apache gives
the compression of a ``.tar.gz`` file itself as one of the transfer.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping

_GZIP = ("gzip", "x-gzip")
# Codings that exist but are not undone here. Other names, such as "UTF-8", are mistakes of the server.
_UNSUPPORTED = ("br", "zstd", "compress", "x-compress", "dcb", "dcz", "exi", "pack200-gzip")
_GZIP_MAGIC = b"\x1f\x8b"
#: Bytes of a body that show whether it is compressed.
DECISIVE_BYTES = 512
_MAX_NAME = 40  # characters of a coding that are shown
_PIECE = 1 << 20  # decoded bytes held at once


class UnsupportedCodingError(ValueError):
    """The body is compressed with a method that is not supported; asking again would give the same."""


def content_codings(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Return the codings that the headers of a response state, in the order in which they were applied."""
    stated = f"{headers.get('Content-Encoding') or ''},{headers.get('Transfer-Encoding') or ''}"
    names = (name.strip().lower()[:_MAX_NAME] for name in stated[:1000].split(","))
    known = (*_GZIP, "deflate", *_UNSUPPORTED)
    return tuple(name for name in names if name in known)


class ContentDecoder:
    """Undoes the content coding of one body as it arrives, within a limit of size.

    Parameters
    ----------
    headers : mapping
        Headers of the response.
    limit : int
        Maximum size of the decoded content, bytes.
    is_content : callable, optional
        Returns whether the first bytes are those of the wanted content, which is then not compressed.
    """

    def __init__(
        self, headers: Mapping[str, str], limit: int, is_content: Callable[[bytes], bool] | None = None
    ) -> None:
        self._codings = content_codings(headers)
        self._limit = limit
        self._is_content = is_content
        self._first: bytes | None = b"" if self._codings else None
        self._undo: zlib._Decompress | None = None
        self._size = 0

    def decode(self, block: bytes) -> Iterator[bytes]:
        """Yield what the next block of the body contains.

        Raises
        ------
        UnsupportedCodingError
            If the coding cannot be undone.
        ValueError
            If the body is damaged, or the content larger than the limit.
        """
        if self._first is not None:
            self._first += block
            if len(self._first) < DECISIVE_BYTES:
                return
            block = self._decide()
        yield from self._unpack(block)

    def finish(self) -> Iterator[bytes]:
        """Yield the rest of the content at the end of the body; for the errors see :meth:`decode`."""
        if self._first is not None:
            yield from self._unpack(self._decide())
        if self._undo is not None and not self._undo.eof:
            raise ValueError("cut: its compressed data is truncated")

    def _decide(self) -> bytes:
        """Choose how to decode, and return the bytes that were held back for it."""
        first, self._first = self._first or b"", None
        [coding, *others] = self._codings
        if not first or (self._is_content is not None and self._is_content(first[:DECISIVE_BYTES])):
            return first
        if others or coding in _UNSUPPORTED:
            name = ", ".join(self._codings)
            raise UnsupportedCodingError(f"it is compressed ({name}) although that was not asked for")
        if coding in _GZIP:
            self._undo = zlib.decompressobj(zlib.MAX_WBITS | 16) if first.startswith(_GZIP_MAGIC) else None
        elif len(first) > 1 and first[0] & 0x0F == 8 and int.from_bytes(first[:2]) % 31 == 0:
            self._undo = zlib.decompressobj()
        elif _is_raw_deflate(first):  # without the zlib header that the standard demands
            self._undo = zlib.decompressobj(-zlib.MAX_WBITS)
        return first

    def _unpack(self, block: bytes) -> Iterator[bytes]:
        if self._undo is None:
            yield block
            return
        while block and not self._undo.eof:  # what follows the compressed data is padding
            try:
                piece = self._undo.decompress(block, _PIECE)
            except zlib.error:
                raise ValueError("its compressed data is damaged") from None
            self._size += len(piece)
            if self._size > self._limit:
                raise ValueError(f"it is larger than {self._limit} bytes when decompressed")
            if piece:
                yield piece
            block = self._undo.unconsumed_tail


def _is_raw_deflate(first: bytes) -> bool:
    try:
        return bool(zlib.decompressobj(-zlib.MAX_WBITS).decompress(first, 1))
    except zlib.error:
        return False


def decode_content(body: bytes, headers: Mapping[str, str], limit: int) -> bytes:
    """Undo the content coding of a whole body.

    Parameters
    ----------
    body : bytes
        The body as received.
    headers : mapping
        Headers of the response.
    limit : int
        Maximum size of the decoded content, bytes.

    Raises
    ------
    ValueError
        If the coding is not supported, the body is damaged or cut, or the content is larger than `limit`.
    """
    decoder = ContentDecoder(headers, limit)
    return b"".join((*decoder.decode(body), *decoder.finish()))
