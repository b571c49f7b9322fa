"""Tests of the fuzzing helper: every kind of failure of a reader is detected and named."""

from __future__ import annotations

import random
import sys
import time
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings

from fuzzing import Reader, fuzz, mutate, mutations


def strange(path: Path) -> None:
    """Misbehave in the way that the file names."""
    match path.read_text(encoding="latin-1"):
        case "value":
            raise ValueError("no table")
        case "key":
            raise KeyError("a")
        case "warn":
            warnings.warn("odd", stacklevel=1)
        case "print":
            print("hello")
        case "memory":
            bytearray(400 << 20)
        case "sleep":
            time.sleep(60)
        case "die":
            import os

            os._exit(7)


def test_each_way_out_is_noticed(tmp_path):
    def told(what: str) -> str:
        path = tmp_path / what
        path.write_text(what)
        with pytest.raises(AssertionError) as caught:
            reader(path)
        return str(caught.value)

    with Reader(f"{__file__}:strange", memory=200 << 20, seconds=1) as reader:
        (tmp_path / "good").write_text("good")
        (tmp_path / "value").write_text("value")
        assert reader(tmp_path / "good") == "read"
        assert reader(tmp_path / "value") == "refused: no table"
        assert "KeyError" in told("key")
        assert "UserWarning" in told("warn")
        assert "printed" in told("print")
        if sys.platform == "linux":
            assert "MemoryError" in told("memory")
        assert "more than 1 s" in told("sleep")
        assert "died (7)" in told("die")
        assert reader(tmp_path / "good") == "read"


def test_a_failure_keeps_its_file(tmp_path):
    with Reader(f"{__file__}:strange", errors=()) as reader:
        with pytest.raises(AssertionError, match=r"kept as mutated-0\.txt"):
            fuzz(_Refuser(reader), [b"value"], tmp_path, suffix=".txt")
    assert (tmp_path / "mutated-0.txt").exists()


class _Refuser(Reader):
    """Reader that refuses every file."""

    def __init__(self, other: Reader) -> None:
        self.name = other.name

    def __call__(self, path: Path) -> str:
        raise AssertionError("wrong")


@settings(max_examples=50)
@given(mutations(bytes(range(256)) * 4))
def test_mutations_are_bytes_of_about_the_same_length(content):
    assert isinstance(content, bytes)
    assert len(content) <= 1024 + 8 * 256


def test_a_seed_gives_the_same_mutation():
    content = bytes(range(256))
    assert mutate(content, random.Random(3)) == mutate(content, random.Random(3)) != content
