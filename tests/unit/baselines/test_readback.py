"""Tests of values that are read back from a device behind the steps that made them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hephaestus_baselines.training.readback import Readback  # noqa: E402


class OnGpu:
    """A tensor of a GPU, whose copy to the host is launched, not waited for."""

    device = torch.device("cuda")

    def __init__(self, value: int) -> None:
        self.value = value

    def to(self, place: str, *, non_blocking: bool) -> Any:
        assert (place, non_blocking) == ("cpu", True)
        return torch.tensor(self.value)


class Event:
    """An event of a stream, which says when it was waited for."""

    def __init__(self, number: int, waited: list[int]) -> None:
        self.number, self.waited = number, waited

    def synchronize(self) -> None:
        self.waited.append(self.number)


class Stream:
    """A stream that numbers its events."""

    def __init__(self) -> None:
        self.events, self.waited = 0, list[int]()

    def record_event(self) -> Event:
        self.events += 1
        return Event(self.events, self.waited)


def test_the_host_waits_for_a_batch_of_a_gpu_two_batches_later(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, received = Stream(), []
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    readback: Readback[int] = Readback(lambda told, found: received.append((told, int(found["a"]))))
    for number in range(1, 5):
        readback.add(number, {"a": OnGpu(10 * number)})
        assert stream.waited == list(range(1, number - 1))
        assert received == [(one, 10 * one) for one in range(1, number - 1)]
    readback.finish()
    assert stream.waited == [1, 2, 3, 4]
    assert [told for told, _ in received] == [1, 2, 3, 4]


def test_values_of_a_cpu_are_there_at_once() -> None:
    received: list[tuple[str, np.ndarray]] = []
    readback: Readback[str] = Readback(lambda told, found: received.append((told, found["a"])))
    readback.add("first", {"a": torch.arange(3)})
    (told, values), *rest = received
    assert (told, values.tolist(), rest) == ("first", [0, 1, 2], [])
