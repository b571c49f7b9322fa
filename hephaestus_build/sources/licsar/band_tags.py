"""Meaning of a raster's values according to its tags: scale, offset, unit, no-data value and colours.

GDAL stores the first three as XML in its tag GDAL_METADATA, and the no-data value as text in GDAL_NODATA.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.sources.licsar.tiff_directory import TiffDirectory, TiffTag

# Bytes of GDAL's XML, to which some programs add their processing history.
_MAX_METADATA_BYTES = 1 << 20


@dataclass(frozen=True)
class BandTags:
    """Meaning of stored values: ``value = stored * scale + offset``, in `unit`.

    Attributes
    ----------
    scale, offset : float
        1 and 0 if not stated.
    unit : str
        Empty if not stated.
    nodata : float or None
        Stored value that means no data.
    """

    scale: float = 1.0
    offset: float = 0.0
    unit: str = ""
    nodata: float | None = None

    @property
    def is_scaled(self) -> bool:
        """Whether values differ from stored values."""
        return (self.scale, self.offset) != (1.0, 0.0)

    def nodata_mask(self, values: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
        """Return where stored `values` have the no-data value; None if none of them does."""
        if self.nodata is None or math.isnan(self.nodata):  # NaN means no data in any case
            return None
        if values.dtype.kind in "iu":
            limits = np.iinfo(values.dtype)
            if not (self.nodata.is_integer() and limits.min <= self.nodata <= limits.max):
                return None
        with np.errstate(over="ignore"):  # such as the lowest float64, which is -inf in float32
            wanted = np.float64(self.nodata).astype(values.dtype)
        if not wanted and self.nodata:  # underflows to 0 in this type
            return None
        hidden: np.ndarray = values == wanted
        return hidden if hidden.any() else None


def read_band_tags(directory: TiffDirectory, units: tuple[str, ...]) -> BandTags:
    """Read the tags that define the meaning of an image's values.

    Parameters
    ----------
    directory : TiffDirectory
        Tags of the image.
    units : tuple of str
        Names of the allowed unit, in lower case; a missing unit is always allowed.

    Raises
    ------
    ValueError
        If the values are in another unit, are colours or have an unusual pixel order, or if the tags are
        invalid.
    """
    _check_interpretation(directory)
    scale, offset, unit = 1.0, 0.0, ""
    for role, text in _metadata_items(directory):
        match role:
            case "scale":
                scale = _parse_number(text, "SCALE")
            case "offset":
                offset = _parse_number(text, "OFFSET")
            case "unittype":
                unit = text.strip()
    if not (math.isfinite(scale) and scale > 0 and math.isfinite(offset)):
        raise ValueError(f"its tags scale values by {scale:g} and add {offset:g}, which is invalid")
    if unit and unit.lower() not in units:
        raise ValueError(f"values are in {sanitize_text(unit, 40)!r} where {units[0]!r} was expected")
    nodata = (directory.text(TiffTag.GDAL_NODATA, most=256) or "").strip()
    return BandTags(scale, offset, unit, _parse_number(nodata, "no-data value") if nodata else None)


def _check_interpretation(directory: TiffDirectory) -> None:
    """Check that the band is a plain image of numbers that starts in the upper left corner."""
    colours = {0: "inverted grey", 2: "red", 3: "indices of a table of colours", 4: "a mask"}
    if (meaning := directory.integer(TiffTag.PHOTOMETRIC, 1)) != 1:
        raise ValueError(f"its values are {colours.get(meaning, f'colours of kind {meaning}')}, not numbers")
    if directory.entries.get(TiffTag.EXTRA_SAMPLES, (0, 0, 0))[1]:
        raise ValueError("its only band is an alpha channel")
    for tag in (TiffTag.ORIENTATION, TiffTag.FILL_ORDER):
        if (order := directory.integer(tag, 1)) != 1:
            raise ValueError(f"its tag {tag.name} is {order}: this order of pixels is not supported")


def _metadata_items(directory: TiffDirectory) -> list[tuple[str, str]]:
    """Return role and text of the first band's items in GDAL's XML metadata."""
    text = directory.text(TiffTag.GDAL_METADATA, most=_MAX_METADATA_BYTES)
    if not text or not text.strip():
        return []
    if "<!DOCTYPE" in text:  # entity definitions can expand a small document without bound
        raise ValueError("its tag GDAL_METADATA has definitions")
    try:
        root = ElementTree.fromstring(text)
        items = [item for item in root if item.tag.lower() == "item"]
    except (ElementTree.ParseError, RecursionError, ValueError) as error:
        raise ValueError(f"its tag GDAL_METADATA cannot be read: {sanitize_text(str(error), 80)}") from None
    return [
        (item.get("role", "").lower(), item.text or "")
        for item in items
        if item.get("sample", "0").strip() in ("", "0")
    ]


def _parse_number(text: str, name: str) -> float:
    """Return `text` as a float; several spellings of infinity and NaN are accepted."""
    spelt = {"1.#qnan": "nan", "-1.#ind": "nan", "1.#inf": "inf", "-1.#inf": "-inf"}
    try:
        if "_" not in text:  # only Python allows underscores in numbers
            return float(spelt.get(text.strip().lower(), text))
    except ValueError:
        pass
    raise ValueError(f"its {name} is {sanitize_text(text, 40)!r}, which is not a number")
