"""Values of batches that are read back from a device without waiting for the steps that made them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

T = TypeVar("T")
#: Batches whose values may still be on their way from a GPU.
_UNDER_WAY = 2


class Readback(Generic[T]):
    """Hands the values of batches on as arrays, in order.

    On a GPU values are copied to pinned memory behind the step that made them, and looked at two batches
    later, so that the host launches steps without waiting for one. On a CPU they are there at once.

    Parameters
    ----------
    receive : callable
        Takes what was said of a batch, and its arrays by name.
    """

    def __init__(self, receive: Callable[[T, dict[str, npt.NDArray[np.generic]]], None]) -> None:
        self._receive = receive
        self._under_way: deque[tuple[torch.cuda.Event | None, T, dict[str, Tensor]]] = deque()

    def add(self, told: T, values: Mapping[str, Tensor]) -> None:
        """Add the values of a batch, all on one device, and what is to be said of them."""
        host = {name: tensor.to("cpu", non_blocking=True) for name, tensor in values.items()}
        device = next(iter(values.values())).device
        on_gpu = device.type == "cuda"
        copied = torch.cuda.current_stream(device).record_event() if on_gpu else None
        self._under_way.append((copied, told, host))
        while len(self._under_way) > (_UNDER_WAY if on_gpu else 0):
            self._hand_over()

    def finish(self) -> None:
        """Hand on what is still on its way."""
        while self._under_way:
            self._hand_over()

    def _hand_over(self) -> None:
        copied, told, host = self._under_way.popleft()
        if copied is not None:
            copied.synchronize()
        self._receive(told, {name: values.numpy() for name, values in host.items()})
