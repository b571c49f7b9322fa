"""Files of a GeoTIFF export, one per image, and their tags."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np

from hephaestus_build import __version__
from hephaestus_build.cube.schema import Variable
from hephaestus_build.export.selection import DimensionIndex, ExportSelection

#: Tag with the key of the content that a file was made from.
KEY_TAG = "HEPHAESTUS_KEY"
#: Part of every key: version of the way in which files are written.
_LAYOUT = 1


@dataclass(frozen=True)
class GeotiffLayer:
    """One image and its file.

    Attributes
    ----------
    path : str
        Path below the folder of the export.
    variable : Variable
        Variable of the cube.
    position : tuple of int
        Position of the image on the variable's leading dimensions.
    tags : dict of str to str
        Tags of the file.
    """

    path: str
    variable: Variable
    position: DimensionIndex
    tags: Mapping[str, str]

    @property
    def content_key(self) -> str:
        """Key of the content that the file is made from."""
        return self.tags[KEY_TAG]


def iter_geotiff_layers(
    source: ExportSelection, window: tuple[slice, slice] | None = None
) -> Iterator[GeotiffLayer]:
    """Yield every selected image that is stored; of `window`, where there is one, alone.

    Masks exist for annotated pairs only, with or without deformation; a date on both date axes has one file
    of each field.
    """
    for layer in _iter_whole_layers(source):
        yield layer if window is None else _cropped(layer, *window)


def _cropped(layer: GeotiffLayer, rows: slice, columns: slice) -> GeotiffLayer:
    """Return the layer of a part of the frame, with another content key."""
    part = f"rows {rows.start} to {rows.stop - 1}, columns {columns.start} to {columns.stop - 1} of the frame"
    return replace(layer, tags=_with_key({**layer.tags, "WINDOW": part}))


def _iter_whole_layers(source: ExportSelection) -> Iterator[GeotiffLayer]:
    annotated = source.cube["annotated"].values
    seen: set[str] = set()
    for variable in source.variables:
        if variable.layout == "frame":
            found = _frame_layer(source, variable)
        elif variable.layout == "pair":
            found = _pair_layers(source, variable, annotated)
        elif variable.layout == "date":
            found = _date_layers(source, variable)
        else:
            continue
        for layer in found:
            if layer.path not in seen:
                seen.add(layer.path)
                yield layer


def _frame_layer(source: ExportSelection, variable: Variable) -> Iterator[GeotiffLayer]:
    if source.is_stored(variable, ()):
        yield _layer(source, f"{source.frame}.{variable.name}.tif", variable, (), {})


def _pair_layers(
    source: ExportSelection, variable: Variable, annotated: np.ndarray
) -> Iterator[GeotiffLayer]:
    mask = variable.name.endswith("_mask")
    for pair, place in source.pair_positions.items():
        if annotated[place] if mask else source.is_stored(variable, place):
            tags = {
                "PAIR": pair.name,
                "PRIMARY_DATE": str(pair.primary),
                "SECONDARY_DATE": str(pair.secondary),
                **(_annotation_tags(source, place) if annotated[place] else {}),
            }
            name = f"interferograms/{pair}/{pair}.{variable.name}.tif"
            yield _layer(source, name, variable, place, tags)


def _date_layers(source: ExportSelection, variable: Variable) -> Iterator[GeotiffLayer]:
    axis, _, quantity = variable.name.partition("_date_")
    days: list[date] = source.cube[f"{axis}_date"].values.astype("datetime64[D]").tolist()
    for position in sorted({place[axis == "secondary"] for place in source.pair_positions.values()}):
        if source.is_stored(variable, (position,)):
            day = days[position]
            name = f"epochs/{day:%Y%m%d}/{day:%Y%m%d}.{quantity}.tif"
            tags = {"DATE": str(day)} if variable.optional else _era5_tags(source, day)
            yield _layer(source, name, variable, (position,), tags)


def _layer(
    source: ExportSelection, name: str, variable: Variable, place: DimensionIndex, tags: dict[str, str]
) -> GeotiffLayer:
    attributes = source.cube[variable.name].attrs
    about = {
        "FRAME": source.frame,
        "VARIABLE": variable.name.rpartition("_date_")[2],
        **{name.upper(): _text(attributes[name]) for name in _COPIED if name in attributes},
        "LONG_NAME": describe_variable(variable),
        **tags,
        # of the chunks in the cube; empty where nothing had to be stored
        "CUBE_OBJECT_BLAKE3": source.hash_image(variable, place),
        "TIFFTAG_SOFTWARE": f"hephaestus-build {__version__}",
    }
    if source.is_simulated:
        about |= {"SIMULATED": "true", "TIFFTAG_IMAGEDESCRIPTION": "SIMULATED DATA: no satellite saw this"}
    return GeotiffLayer(f"{source.frame}/{name}", variable, place, _with_key(about))


def _with_key(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of a file with the key of its content, the same in each version of this program."""
    content = {name: value for name, value in tags.items() if name not in (KEY_TAG, "TIFFTAG_SOFTWARE")}
    key = hashlib.sha256(json.dumps([_LAYOUT, content], sort_keys=True).encode()).hexdigest()[:32]
    return {**tags, KEY_TAG: key}


_COPIED = ("units", "standard_name", "comment", "flag_values", "flag_meanings", "source", "license")


def describe_variable(variable: Variable) -> str:
    """Return the description of an image; for fields of a date without the date axis."""
    text = str(variable.attributes["long_name"])
    return text.replace(" at the primary acquisition", "").replace(" at the secondary acquisition", "")


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _annotation_tags(source: ExportSelection, place: DimensionIndex) -> dict[str, str]:
    """Return the annotation of a pair as tags."""
    annotation = {
        name: source.cube[name].values[place] for name in ("phase", "caption", "unique_id", "confidence")
    }
    return {
        f"ANNOTATION_{name.upper()}": f"{value:.3g}" if name == "confidence" else str(value)
        for name, value in annotation.items()
    }


def _era5_tags(source: ExportSelection, day: date) -> dict[str, str]:
    """Return the hour and version of an ERA5 field as tags."""
    at = {"epoch": np.datetime64(day)}
    return {
        "DATE": str(day),
        "ERA5_HOUR": f"{np.datetime_as_string(source.cube['era5_time'].sel(at).values, 'h')}Z",
        "ERA5_EXPVER": str(source.cube["era5_expver"].sel(at).values),
    }
