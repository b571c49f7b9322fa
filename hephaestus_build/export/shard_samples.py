"""Samples of a WebDataset export: which files each consists of, in the keys of the published data set."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from hephaestus_build.core.atomic_io import encode_json
from hephaestus_build.core.frames import Pair
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.cube.schema import MASK_VARIABLES, Variable, cube_schema
from hephaestus_build.export.selection import DimensionIndex, ExportSelection
from hephaestus_build.export.torch_files import encode_plain_values, encode_tensor

#: Channels of ``image.pth``, in the published order.
CHANNELS = (
    "insar_difference",
    "insar_coherence",
    "dem",
    *(
        f"{date}_date_{quantity}"
        for quantity in ("total_column_water_vapour", "surface_pressure", "vertical_integral_of_temperature")
        for date in ("primary", "secondary")
    ),
)
_FLAGS = (
    "corrupted", "processing_error", "glacier_fringes", "orbital_fringes", "atmospheric_fringes",
    "low_coherence", "no_info", "image_artifacts", "is_crowd",
)  # fmt: skip


@dataclass(frozen=True)
class ShardSample:
    """One sample of an export.

    Attributes
    ----------
    key : str
        Name of its files up to the first dot.
    frame : str
        Frame id.
    pair : Pair
        Dates of the interferogram.
    positive : bool
        Whether the expert saw deformation.
    """

    key: str
    frame: str
    pair: Pair
    positive: bool


def largest_sample_bytes(size: int) -> int:
    """Return an upper bound of the bytes that a sample takes in a shard."""
    pixels = size * size
    return pixels * (4 * len(CHANNELS) + 8 + 2) + 64 * 1024


def encode_sample(sample: ShardSample, source: ExportSelection, size: int, part: str) -> Mapping[str, bytes]:
    """Return the files of a sample by the part of their names after the key.

    ``image.pth`` is float32 of shape (9, size, size), ``labels.pth`` int64 of shape (1, size, size),
    ``sample.pth`` a dictionary as published; ``png`` and ``txt`` are an image-text pair of phase and caption,
    and ``json`` describes all of them.

    Parameters
    ----------
    sample : ShardSample
        The sample.
    source : ExportSelection
        The cube of its frame.
    size : int
        Rows and columns of the window.
    part : str
        Part of the split.
    """
    place = source.pair_positions[sample.pair]
    schema = cube_schema().variables
    mask = source.read_image(schema["deformation_mask"], place)
    row, column = window_start(mask, size)

    def cut(variable: Variable, at: DimensionIndex) -> npt.NDArray[Any]:
        return _read_padded(source, variable, at, row, column, size)

    leading = {"primary": (place[0],), "secondary": (place[1],)}
    image = np.zeros((len(CHANNELS), size, size), "f4")
    for channel, name in enumerate(CHANNELS):
        at = () if name == "dem" else leading.get(name.partition("_date_")[0], place)
        # a reader of tensors has no use for NaN: one pixel would make every loss NaN
        image[channel] = np.nan_to_num(cut(schema[name], at), nan=0.0)
    codes = {name: cut(schema[name], place) for name in MASK_VARIABLES}
    about = describe_annotation(sample, source, place, codes)
    simulated = source.is_simulated
    window = {"row": row, "column": column, "size": size}
    return {
        "image.pth": encode_tensor(image),
        "json": encode_json(
            {
                "frame": sample.frame,
                "pair": sample.pair.name,
                "part": part,
                "positive": sample.positive,
                "simulated": simulated,
                "window": window,
                "channels": list(CHANNELS),
                "annotation": about,
            }
        ),
        "labels.pth": encode_tensor((codes["deformation_mask"] > 0)[np.newaxis].astype("i8")),
        "png": encode_phase_png(image[0], simulated=simulated),
        "sample.pth": encode_plain_values(
            {
                "frame_id": sample.frame,
                "annotation": [about],
                "label": [int(sample.positive)],
                "annotation_path": [f"{about['uniqueID']}.json"],
                "simulated": simulated,
            }
        ),
        "txt": str(about["caption"]).encode(),
    }


def window_start(mask: npt.NDArray[Any], size: int) -> tuple[int, int]:
    """Return the first row and column of the window around the middle of a mask, moved into the frame.

    Without deformation it is in the middle of the frame. The published windows have a random offset in
    addition. A frame smaller than the window begins at 0 in it.
    """
    starts = []
    for axis, total in enumerate(mask.shape):
        inside = np.flatnonzero((mask > 0).any(axis=1 - axis))
        middle = (inside[0] + inside[-1] + 1) // 2 if len(inside) else total // 2
        starts.append(int(np.clip(middle - size // 2, 0, max(0, total - size))))
    return starts[0], starts[1]


def describe_annotation(
    sample: ShardSample,
    source: ExportSelection,
    place: DimensionIndex,
    masks: Mapping[str, npt.NDArray[Any]],
) -> dict[str, Any]:
    """Return the annotation of a sample in the words of the published files, as far as the cube has it."""

    def table(name: str) -> Any:
        return source.cube[name].values[place]

    def words(name: str) -> list[str]:
        meanings = cube_schema().variables[name].attributes["flag_meanings"].split()
        return [meanings[code] for code in np.unique(masks[name][masks[name] > 0])]

    found = set(np.unique(masks["deformation_mask"]).tolist())
    label = [word for code, word in ((1, "Deformation"), (2, "Earthquake")) if code in found]
    return {
        "uniqueID": int(table("unique_id")),
        "frameID": sample.frame,
        "primary_date": sample.pair.name[:8],
        "secondary_date": sample.pair.name[9:],
        "label": label or (["Deformation"] if sample.positive else ["Non_Deformation"]),
        "activity_type": words("activity_type_mask"),
        "intensity_level": words("intensity_level_mask"),
        "phase": sanitize_text(table("phase"), 100),
        **{name: int(table(name)) for name in _FLAGS},
        "confidence": round(float(table("confidence")), 3),
        "caption": sanitize_text(table("caption"), 4000),
    }


def encode_phase_png(phase: npt.NDArray[np.floating], *, simulated: bool) -> bytes:
    """Return wrapped phase as a grey PNG: 0 is no data, 1 to 255 go from -pi to pi."""
    from PIL.PngImagePlugin import PngInfo

    gray = np.where(phase == 0, 0, 1 + np.round((phase + np.pi) / (2 * np.pi) * 254)).clip(0, 255)
    about = PngInfo()
    if simulated:
        about.add_text("Comment", "SIMULATED data")
    stream = io.BytesIO()
    Image.fromarray(gray.astype("u1")).save(stream, "PNG", pnginfo=about)
    return stream.getvalue()


def _read_padded(
    source: ExportSelection, variable: Variable, place: DimensionIndex, row: int, column: int, size: int
) -> npt.NDArray[Any]:
    """Return a window; what lies beyond a small frame has the fill value."""
    height, width = source.grid.shape
    rows, columns = slice(row, min(row + size, height)), slice(column, min(column + size, width))
    values = source.read_window(variable, place, rows, columns)
    if values.shape == (size, size):
        return values
    padded = np.full((size, size), variable.fill, values.dtype)
    padded[: values.shape[0], : values.shape[1]] = values
    return padded
