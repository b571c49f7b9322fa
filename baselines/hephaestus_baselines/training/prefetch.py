"""Preparation of batches ahead of their step, beside the step before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

B = TypeVar("B")
P = TypeVar("P")
#: Batches that are prepared while the step of an earlier one runs.
_AHEAD = 1


class PreparationStream(Protocol):
    """Where batches are prepared, apart from the steps of the model.

    :func:`prepare_ahead` calls ``begin`` for each batch in order, and ``receive`` for each in the same order,
    at the moment at which its step is launched.
    """

    def begin(self, work: Callable[[], Any]) -> Any:
        """Start `work`, or queue it behind earlier work of this stream; return what ``receive`` takes."""

    def receive(self, started: Any) -> Any:
        """Return the result of `work`, which steps that are launched from now on may use."""


class CudaPreparationStream:
    """A second stream of a GPU.

    The host does not wait for either stream, except that it is at most two batches ahead of the steps: their
    memory would grow otherwise.

    Parameters
    ----------
    device : torch.device
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)
        self._launched: deque[Any] = deque()

    def begin(self, work: Callable[[], Any]) -> Any:
        """Queue `work` on the second stream, behind all steps that are launched by now."""
        launched = torch.cuda.current_stream(self.device).record_event()
        self._launched.append(launched)
        if len(self._launched) > 2:
            self._launched.popleft().synchronize()
        # memory that these steps have freed may be used again for this batch
        self._stream.wait_event(launched)
        with torch.cuda.stream(self._stream):
            result = work()
            return result, self._stream.record_event()

    def receive(self, started: Any) -> Any:
        """Let the main stream wait for `work`; its tensors stay until the main stream is done with them."""
        result, finished = started
        main = torch.cuda.current_stream(self.device)
        main.wait_event(finished)
        for values in iter_tensors(result):
            if values.is_cuda:
                values.record_stream(main)
        return result


def iter_tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in a tensor, a mapping or a sequence of such."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from iter_tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from iter_tensors(item)


def make_preparation_stream(device: torch.device) -> PreparationStream | None:
    """Return the second stream of a GPU; None for a CPU, where a batch is prepared before its own step."""
    return CudaPreparationStream(device) if device.type == "cuda" else None


def prepare_ahead(
    batches: Iterable[B], prepare: Callable[[B], P], stream: PreparationStream | None
) -> Iterator[P]:
    """Yield prepared batches in order; with a stream, each is begun before the step of the one before.

    Parameters
    ----------
    batches : iterable
        Batches of the loader.
    prepare : callable
        Copies a batch to the device and prepares it there.
    stream : PreparationStream or None
        None prepares a batch when it is asked for, after the step of the one before.
    """
    if stream is None:
        yield from map(prepare, batches)
        return
    started: deque[Any] = deque()
    for batch in batches:
        started.append(stream.begin(lambda batch=batch: prepare(batch)))  # type: ignore[misc]
        if len(started) > _AHEAD:
            yield stream.receive(started.popleft())
    while started:
        yield stream.receive(started.popleft())


class BatchStream(Generic[P]):
    """The prepared batches of a whole run from one iterator of its loader, epoch after epoch.

    Readers go on with the next part while the last batches of one are in use, so that no part begins cold.
    Parts must be asked for in the order in which the loader yields them.

    Parameters
    ----------
    loader : iterable
        Yields the batches of the parts in turn.
    prepare : callable
        See :func:`prepare_ahead`.
    stream : callable
        Returns the stream of the device, when the first batch is asked for.
    """

    def __init__(
        self,
        loader: Iterable[B],
        prepare: Callable[[B], P],
        stream: Callable[[], PreparationStream | None] = lambda: None,
    ) -> None:
        self._loader, self._prepare, self._make_stream = loader, prepare, stream
        self._reading: Iterator[B] | None = None
        self._prepared: Iterator[P] | None = None

    def take(self, count: int) -> Iterator[P]:
        """Yield the next `count` batches."""
        for _ in range(count):
            if self._prepared is None:
                self._reading = iter(self._loader)
                self._prepared = prepare_ahead(self._reading, self._prepare, self._make_stream())
            yield next(self._prepared)

    def close(self) -> None:
        """End the reader processes, if any."""
        reading, self._reading, self._prepared = self._reading, None, None
        shut_down = getattr(reading, "_shutdown_workers", None)  # as Lightning ends them
        if shut_down is not None:
            shut_down()


class PartOfStream(Generic[P]):
    """The batches of one part in a :class:`BatchStream`, once for each epoch; a loader for Lightning."""

    def __init__(self, stream: BatchStream[P], count: int) -> None:
        self._stream, self._count = stream, count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[P]:
        return self._stream.take(self._count)
