"""Stacks of a variable: one virtual raster (VRT) with a band for each pair or date, in order of time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from hephaestus_build.core.grid import Grid
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.cube.schema import Variable
from hephaestus_build.export.geotiff_layers import GeotiffLayer, describe_variable

_GDAL_TYPES = {"float32": "Float32", "uint8": "Byte", "int16": "Int16", "uint16": "UInt16"}
#: Tags of an image that its band repeats.
_BAND_TAGS = (
    "PAIR",
    "PRIMARY_DATE",
    "SECONDARY_DATE",
    "DATE",
    "ANNOTATION_PHASE",
    "ANNOTATION_CAPTION",
    "SIMULATED",
)


def image_nodata(variable: Variable) -> float | None:
    """Return the no-data value of a variable's images; None for masks, whose 0 is a value."""
    if "flag_values" in variable.attributes:
        return None
    return float("nan") if math.isnan(variable.fill) else variable.fill


def layers_in_time(layers: Sequence[GeotiffLayer]) -> list[GeotiffLayer]:
    """Return layers in the order of the date on which they end, then of the one on which they begin."""
    return sorted(
        layers,
        key=lambda layer: (
            layer.tags.get("SECONDARY_DATE") or layer.tags.get("DATE", ""),
            layer.tags.get("PRIMARY_DATE", ""),
        ),
    )


def stack_xml(layers: Sequence[GeotiffLayer], grid: Grid, folder: str) -> str:
    """Return the virtual raster of the images of one variable.

    Parameters
    ----------
    layers : sequence of GeotiffLayer
        Images of one variable, in the order of the bands.
    grid : Grid
        Grid of every image.
    folder : str
        Folder of the virtual raster, below which the images lie; as in the paths of `layers`.
    """
    variable = layers[0].variable
    root = Element("VRTDataset", rasterXSize=str(grid.width), rasterYSize=str(grid.height))
    SubElement(root, "SRS").text = "EPSG:4326"
    west, north = grid.west, grid.north
    numbers = (west, grid.dx, 0.0, north, 0.0, -grid.dy)
    SubElement(root, "GeoTransform").text = ", ".join(map(repr, numbers))
    about = SubElement(root, "Metadata")
    for name in ("FRAME", "VARIABLE", "UNITS", "LONG_NAME", "SIMULATED"):
        if name in layers[0].tags:
            SubElement(about, "MDI", key=name).text = layers[0].tags[name]
    whole = {"xOff": "0", "yOff": "0", "xSize": str(grid.width), "ySize": str(grid.height)}
    data_type = _GDAL_TYPES[str(variable.dtype)]
    nodata = image_nodata(variable)
    for number, layer in enumerate(layers, 1):
        band = SubElement(root, "VRTRasterBand", dataType=data_type, band=str(number))
        tags = SubElement(band, "Metadata")
        for name in _BAND_TAGS:
            if name in layer.tags:
                SubElement(tags, "MDI", key=name).text = sanitize_text(layer.tags[name], 4000)
        SubElement(band, "Description").text = (
            layer.tags.get("PAIR") or layer.tags.get("DATE") or describe_variable(variable)
        )
        if nodata is not None:
            SubElement(band, "NoDataValue").text = repr(nodata)
        source = SubElement(band, "SimpleSource")
        SubElement(source, "SourceFilename", relativeToVRT="1").text = layer.path.removeprefix(f"{folder}/")
        SubElement(source, "SourceBand").text = "1"
        # with these GDAL need not open every image to open the stack
        SubElement(
            source,
            "SourceProperties",
            RasterXSize=str(grid.width),
            RasterYSize=str(grid.height),
            DataType=data_type,
            BlockXSize="512",
            BlockYSize="512",
        )
        SubElement(source, "SrcRect", whole)
        SubElement(source, "DstRect", whole)
    indent(root)
    return tostring(root, encoding="unicode") + "\n"
