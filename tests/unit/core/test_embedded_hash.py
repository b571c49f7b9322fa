"""Tests of embedded hashes: flipped bits and truncation are found, and other programs can read the files."""

from __future__ import annotations

import io
import json
import zipfile
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hephaestus_build.core.embedded_hash import (
    MissingHashError,
    add_json_hash,
    add_zip_hash,
    check_zip_hash,
    parse_hashed_json,
)

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@cache
def archive() -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, a=np.arange(200))
    return bytes(add_zip_hash(stream))


@given(st.dictionaries(st.text(max_size=4).filter(lambda name: name != "seal"), values, max_size=4))
def test_a_sealed_object_is_read_back_and_is_json_for_others(value):
    for indent in (None, 1):
        sealed = add_json_hash(json.dumps(value, indent=indent).encode())
        assert parse_hashed_json(sealed) == value
        assert json.loads(sealed)["seal"].startswith("blake3:")


def test_every_single_flip_of_a_sealed_object_is_found():
    sealed = add_json_hash(json.dumps({"scores": {"f1": 0.5}, "seed": 3}).encode())
    for bit in range(8 * len(sealed)):
        flipped = bytearray(sealed)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError):
            parse_hashed_json(bytes(flipped))


def test_every_single_flip_of_a_sealed_archive_is_found():
    sealed = archive()
    check_zip_hash(io.BytesIO(sealed))
    for bit in range(8 * len(sealed)):
        flipped = bytearray(sealed)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError):
            check_zip_hash(io.BytesIO(flipped))


@given(st.data())
def test_every_cut_is_found(data):
    for sealed, check in (
        (archive(), lambda part: check_zip_hash(io.BytesIO(part))),
        (add_json_hash(b"{}"), parse_hashed_json),
    ):
        with pytest.raises(ValueError):
            check(sealed[: data.draw(st.integers(0, len(sealed) - 1))])
        with pytest.raises(ValueError):
            check(sealed + b"\0")


def test_other_programs_read_a_sealed_archive():
    sealed = archive()
    with zipfile.ZipFile(io.BytesIO(sealed)) as opened:
        assert opened.testzip() is None
        assert opened.comment.startswith(b"hephaestus blake3:")
    with np.load(io.BytesIO(sealed)) as arrays:
        assert arrays["a"].tolist() == list(range(200))


def test_what_has_no_seal_is_told_from_what_is_damaged():
    stream = io.BytesIO()
    np.savez(stream, a=np.arange(3))
    with pytest.raises(MissingHashError):
        check_zip_hash(stream)
    with pytest.raises(MissingHashError):
        parse_hashed_json(b'{"a": 1}')
    with pytest.raises(ValueError, match="not a zip archive"):
        add_zip_hash(io.BytesIO(b"text that is no archive at all"))
