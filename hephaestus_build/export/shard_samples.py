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
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.cube.schema import CHANNELS, MASK_VARIABLES, Variable, cube_schema
from hephaestus_build.dataset.samples import Sample, Series
from hephaestus_build.export.selection import DimensionIndex, ExportSelection
from hephaestus_build.export.torch_files import encode_plain_values, encode_tensor

_FLAGS = (
    "corrupted", "processing_error", "glacier_fringes", "orbital_fringes", "atmospheric_fringes",
    "low_coherence", "no_info", "image_artifacts", "is_crowd",
)  # fmt: skip


@dataclass(frozen=True)
class ShardSample:
    """One sample of an export: an interferogram, or a series of them.

    Attributes
    ----------
    key : str
        Name of its files up to the first dot.
    content : Sample or Series
        What it shows.
    """

    key: str
    content: Sample | Series

    @property
    def members(self) -> tuple[Sample, ...]:
        """Its interferograms, one for each step."""
        return self.content.members if isinstance(self.content, Series) else (self.content,)

    @property
    def frame(self) -> str:
        """Frame id."""
        return self.members[0].frame.id

    @property
    def name(self) -> str:
        """Its dates: those of the pair, or the primary and all secondaries of the series."""
        return self.content.name if isinstance(self.content, Series) else self.content.pair.name

    @property
    def positive(self) -> bool:
        """Whether the expert saw deformation in any step."""
        return self.content.positive


def largest_sample_bytes(size: int, steps: int = 1) -> int:
    """Return an upper bound of the bytes that a sample of `steps` interferograms takes in a shard."""
    pixels = size * size
    return steps * (pixels * (4 * len(CHANNELS) + 8 + 2) + 64 * 1024)


def encode_sample(sample: ShardSample, source: ExportSelection, size: int, part: str) -> Mapping[str, bytes]:
    """Return the files of a sample by the part of their names after the key.

    ``image.pth`` is float32 of shape (9, size, size), ``labels.pth`` int64 of shape (1, size, size),
    ``sample.pth`` a dictionary as published; ``png`` and ``txt`` are an image-text pair of phase and caption,
    and ``json`` describes all of them. Of a series the steps follow each other, as published: channels of the
    first, of the second, and so on; in the picture they stand side by side, and each has a line of text.

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
    places = [source.pair_positions[member.pair] for member in sample.members]
    deformation = cube_schema().variables["deformation_mask"]
    window = window_start(np.maximum.reduce([source.read_image(deformation, at) for at in places]), size)
    steps = [_read_step(source, at, window, size) for at in places]
    images = np.concatenate([image for image, _ in steps])
    labels = np.stack([masks["deformation_mask"] > 0 for _, masks in steps])
    about = [
        describe_annotation(member, source, at, masks)
        for member, at, (_, masks) in zip(sample.members, places, steps, strict=True)
    ]
    simulated = source.is_simulated
    is_series = isinstance(sample.content, Series)
    return {
        "image.pth": encode_tensor(images),
        "json": encode_json(
            {
                "frame": sample.frame,
                "pair": sample.name,
                "part": part,
                "positive": sample.positive,
                "simulated": simulated,
                "window": {"row": window[0], "column": window[1], "size": size},
                "channels": list(CHANNELS),
                **({"annotations": about} if is_series else {"annotation": about[0]}),
            }
        ),
        "labels.pth": encode_tensor(labels.astype("i8")),
        "png": encode_phase_png(np.concatenate(images[:: len(CHANNELS)], axis=1), simulated=simulated),
        "sample.pth": encode_plain_values(
            {
                "frame_id": sample.frame,
                "annotation": about,
                "label": [int(member.positive) for member in sample.members],
                "annotation_path": [f"{one['uniqueID']}.json" for one in about],
                "simulated": simulated,
            }
        ),
        "txt": "\n".join(str(one["caption"]) for one in about).encode(),
    }


def _read_step(
    source: ExportSelection, place: DimensionIndex, window: tuple[int, int], size: int
) -> tuple[npt.NDArray[np.float32], dict[str, npt.NDArray[Any]]]:
    """Return the channels of an interferogram and its masks in a window."""
    schema = cube_schema().variables
    leading = {"primary": (place[0],), "secondary": (place[1],)}

    def cut(name: str, at: DimensionIndex) -> npt.NDArray[Any]:
        return _read_padded(source, schema[name], at, *window, size)

    image = np.zeros((len(CHANNELS), size, size), "f4")
    for channel, name in enumerate(CHANNELS):
        at = () if name == "dem" else leading.get(name.partition("_date_")[0], place)
        # a reader of tensors has no use for NaN: one pixel would make every loss NaN
        image[channel] = np.nan_to_num(cut(name, at), nan=0.0)
    return image, {name: cut(name, place) for name in MASK_VARIABLES}


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
    sample: Sample,
    source: ExportSelection,
    place: DimensionIndex,
    masks: Mapping[str, npt.NDArray[Any]],
) -> dict[str, Any]:
    """Return what the cube has of an annotation, in the words of the published files."""

    def table(name: str) -> Any:
        return source.cube[name].values[place]

    def words(name: str) -> list[str]:
        meanings = cube_schema().variables[name].attributes["flag_meanings"].split()
        return [meanings[code] for code in np.unique(masks[name][masks[name] > 0])]

    found = set(np.unique(masks["deformation_mask"]).tolist())
    label = [word for code, word in ((1, "Deformation"), (2, "Earthquake")) if code in found]
    return {
        "uniqueID": int(table("unique_id")),
        "frameID": sample.frame.id,
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
