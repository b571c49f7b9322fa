"""What a raster's own tags say of its values: scale, offset, unit, no-data value, and colours.

GDAL keeps the first three in an XML document in a tag of its own, the no-data value as a text.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np

from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.sources.licsar.tiff_directory import TiffDirectory, TiffTag

# Bytes of GDAL's document; other programs keep their history there.
_MAX_METADATA_BYTES = 1 << 20


@dataclass(frozen=True)
class BandTags:
    """How stored values are meant: ``value = stored * scale + offset``, in `unit`.

    Attributes
    ----------
    scale, offset : float
        1 and 0 where nothing is said.
    unit : str
        Empty where nothing is said.
    nodata : float or None
        Of stored values.
    """

    scale: float = 1.0
    offset: float = 0.0
    unit: str = ""
    nodata: float | None = None

    @property
    def is_scaled(self) -> bool:
        """Whether values are other than they are stored."""
        return (self.scale, self.offset) != (1.0, 0.0)

    def nodata_mask(self, values: np.ndarray) -> np.ndarray | None:
        """Return where the no-data value stands in stored `values`; None where it stands nowhere."""
        if self.nodata is None or math.isnan(self.nodata):  # what is no finite number is no data anyhow
            return None
        if values.dtype.kind in "iu":
            limits = np.iinfo(values.dtype)
            if not (self.nodata.is_integer() and limits.min <= self.nodata <= limits.max):
                return None
        with np.errstate(over="ignore"):  # such as the least double, for floats of 32 bits
            wanted = np.float64(self.nodata).astype(values.dtype)
        if not wanted and self.nodata:  # too small for the type: no value of its own
            return None
        hidden: np.ndarray = values == wanted
        return hidden if hidden.any() else None


def read_band_tags(directory: TiffDirectory, units: tuple[str, ...]) -> BandTags:
    """Return what an image's tags say of its values.

    Parameters
    ----------
    directory : TiffDirectory
        The image's.
    units : tuple of str
        Names of the only unit that values may have, in lower case; no unit is always allowed.

    Raises
    ------
    ValueError
        If the values are in another unit, are colours or are stored in an order of their own; or if what is
        said of them cannot be understood.
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
        raise ValueError(f"its tags scale values by {scale:g} and add {offset:g}: that makes no sense")
    if unit and unit.lower() not in units:
        raise ValueError(f"values are in {sanitize_text(unit, 40)!r} where {units[0]!r} was expected")
    nodata = (directory.text(TiffTag.GDAL_NODATA, most=256) or "").strip()
    return BandTags(scale, offset, unit, _parse_number(nodata, "no-data value") if nodata else None)


def _check_interpretation(directory: TiffDirectory) -> None:
    """Check that the band is a plain image of numbers, from its upper left corner on."""
    colours = {0: "inverted grey", 2: "red", 3: "indices of a table of colours", 4: "a mask"}
    if (meaning := directory.integer(TiffTag.PHOTOMETRIC, 1)) != 1:
        raise ValueError(f"its values are {colours.get(meaning, f'colours of kind {meaning}')}, not numbers")
    if directory.entries.get(TiffTag.EXTRA_SAMPLES, (0, 0, 0))[1]:
        raise ValueError("its only band is an alpha channel")
    for tag in (TiffTag.ORIENTATION, TiffTag.FILL_ORDER):
        if (order := directory.integer(tag, 1)) != 1:
            raise ValueError(f"its tag {tag.name} is {order}: the order of its pixels is not understood")


def _metadata_items(directory: TiffDirectory) -> list[tuple[str, str]]:
    """Return role and text of the items in GDAL's document that are about the first band's values."""
    text = directory.text(TiffTag.GDAL_METADATA, most=_MAX_METADATA_BYTES)
    if not text or not text.strip():
        return []
    if "<!DOCTYPE" in text:  # its definitions could make a small document large
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
    """Return the number that a text is; infinity and NaN are spelt in several ways."""
    spelt = {"1.#qnan": "nan", "-1.#ind": "nan", "1.#inf": "inf", "-1.#inf": "-inf"}
    try:
        if "_" not in text:  # Python alone takes it for part of a number
            return float(spelt.get(text.strip().lower(), text))
    except ValueError:
        pass
    raise ValueError(f"its {name} is {sanitize_text(text, 40)!r}, which is no number")
