"""Windows of the cubes as compact tensors, for PyTorch's DataLoader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from baselines.items import Draw, Item
from hephaestus_build.tiles import TILE_SIZE


class Windows(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """The windows of `items`, read from the cubes when they are asked for.

    Parameters
    ----------
    items : sequence of Item
        All of one number of members.
    stores : mapping of frame id to pathlib.Path
        Each frame's pinned cube (``Prepared.stores``).
    size : int
        Rows and columns of a window.
    atmosphere : bool
        Whether to read ERA5's fields.

    Notes
    -----
    An item is a dictionary; T is the number of members, S the size, K points of ERA5's grid:

    ``phase`` float32 (T, S, S), rad, 0 = no data; ``coherence`` uint8 (T, S, S); ``dem`` float32 (S, S), m,
    NaN = none; ``mask`` uint8 (T, S, S), the deformation mask; ``atmosphere`` float32 (T, 2, 3, K, K), ERA5
    around the window at the primary and secondary date; ``rows``, ``columns`` float32 (S,), positions of
    the pixels on those K x K points, NaN beyond the frame; ``inside`` bool (S, S), pixels that the window
    answers for; ``label`` int64, whether any pixel of any step deforms; ``weight`` float32, mean
    confidence of the annotators, 1 where unknown; ``index`` int64, position in `items`.
    """

    def __init__(
        self,
        items: Sequence[Item],
        stores: Mapping[str, Path],
        *,
        size: int = TILE_SIZE,
        atmosphere: bool = True,
    ) -> None:
        self.items, self.size, self.atmosphere = tuple(items), size, atmosphere
        self.stores = {frame: Path(path) for frame, path in stores.items()}

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, draw: Draw | int) -> dict[str, torch.Tensor]:
        raise NotImplementedError
