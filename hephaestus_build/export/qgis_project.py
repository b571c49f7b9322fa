"""QGIS project of an export: a layer for each image, styled, and the temporal controller set.

A layer is shown on the day on which its pair ends, so that the controller steps from one acquisition to the
next. The elements are those that QGIS 3.22 wrote; what is left out takes its default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from itertools import pairwise
from math import pi
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from hephaestus_build.core.crs import WGS84_WKT
from hephaestus_build.core.grid import Grid
from hephaestus_build.cube.schema import MASK_VARIABLES, Variable
from hephaestus_build.export.geotiff_layers import GeotiffLayer

#: Colours of wrapped phase, evenly spaced over a cycle: a circle of hues in Oklab, without a seam.
PHASE_COLOURS = (
    *("#cd6c8c", "#e27b78", "#ee9065", "#eda756", "#dfbb54", "#c2c962", "#99cf7a", "#65cc94"),
    *("#1cc1aa", "#00afbb", "#009ac5", "#3685c8", "#5c73c5", "#7b67bc", "#9761af", "#b3639f"),
)
#: Colours of the codes of masks from 1 on, told apart by colour-blind eyes.
_MASK_COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
#: Variables with a style, the topmost layers first; whether they are shown when the project opens.
_SHOWN = {"deformation_mask": True, "activity_type_mask": False, "intensity_level_mask": False,
          "insar_difference": True, "insar_coherence": False, "dem": True}  # fmt: skip
#: Heights are metres and pixels are degrees.
_METRES_TO_DEGREES = 1e-5
_DAYS_STEP = 12


def project_xml(frame: str, layers: Mapping[str, Sequence[GeotiffLayer]], grid: Grid, simulated: bool) -> str:
    """Return the project, whose paths are relative to the folder of the frame.

    Parameters
    ----------
    frame : str
        Frame id.
    layers : mapping of str to sequence of GeotiffLayer
        Images by variable, in order of time. Variables that have no style here are left out.
    grid : Grid
        Grid of every image.
    simulated : bool
        Whether the data is simulated, which the title then says.
    """
    shown = {name: layers[name] for name in _SHOWN if name in layers}
    root = Element("qgis", version="3.22.0", projectname=frame)
    SubElement(root, "title").text = f"{frame}, SIMULATED" if simulated else frame
    _add_crs(SubElement(root, "projectCrs"))
    tree = SubElement(root, "layer-tree-group")
    for name, images in shown.items():
        # the newest on top
        for image in reversed(images):
            if not image.position:
                parent = tree
            elif image is images[-1]:
                parent = SubElement(
                    tree,
                    "layer-tree-group",
                    name=name,
                    checked="Qt::Checked" if _SHOWN[name] else "Qt::Unchecked",
                    expanded="0",
                )
            SubElement(
                parent,
                "layer-tree-layer",
                id=_layer_id(image),
                name=_title(image),
                providerKey="gdal",
                source=_source(image, frame),
                checked="Qt::Checked",
                expanded="0",
            )
    canvas = SubElement(root, "mapcanvas", name="theMapCanvas")
    SubElement(canvas, "units").text = "degrees"
    _add_extent(canvas, grid)
    _add_crs(SubElement(canvas, "destinationsrs"))
    stored = SubElement(root, "projectlayers")
    for images in shown.values():
        for image in images:
            _add_layer(stored, image, grid, frame)
    days = sorted({day for images in shown.values() for image in images if (day := _last_day(image))})
    properties = SubElement(root, "properties")
    SubElement(SubElement(properties, "Paths"), "Absolute", type="bool").text = "false"
    # without it the project has no coordinate system
    SubElement(SubElement(properties, "SpatialRefSys"), "ProjectionsEnabled", type="int").text = "1"
    if days:
        _add_time(root, properties, days)
    indent(root)
    return tostring(root, encoding="unicode") + "\n"


def _add_layer(parent: Element, image: GeotiffLayer, grid: Grid, frame: str) -> None:
    layer = SubElement(parent, "maplayer", type="raster", styleCategories="AllStyleCategories")
    _add_extent(layer, grid)
    SubElement(layer, "id").text = _layer_id(image)
    SubElement(layer, "datasource").text = _source(image, frame)
    SubElement(layer, "layername").text = _title(image)
    _add_crs(SubElement(layer, "srs"))
    SubElement(layer, "provider").text = "gdal"
    SubElement(SubElement(layer, "noData"), "noDataList", bandNo="1", useSrcNoData="1")
    if day := _last_day(image):
        temporal = SubElement(layer, "temporal", mode="0", enabled="1", fetchMode="0")
        span = SubElement(temporal, "fixedRange")
        SubElement(span, "start").text = f"{day}T00:00:00Z"
        SubElement(span, "end").text = f"{day}T23:59:59Z"
    pipe = SubElement(layer, "pipe")
    SubElement(
        SubElement(pipe, "provider"), "resampling", enabled="false", maxOversampling="2",
        zoomedInResamplingMethod="nearestNeighbour", zoomedOutResamplingMethod="nearestNeighbour",
    )  # fmt: skip
    _add_renderer(pipe, image.variable)
    SubElement(layer, "blendMode").text = "0"


def _add_renderer(pipe: Element, variable: Variable) -> None:
    """Add the style of a variable."""
    common = {"band": "1", "opacity": "1", "alphaBand": "-1", "nodataColor": ""}
    if variable.name == "insar_difference":
        low, high = f"{-pi:.8f}", f"{pi:.8f}"
        renderer = SubElement(
            pipe,
            "rasterrenderer",
            common,
            type="singlebandpseudocolor",
            classificationMin=low,
            classificationMax=high,
        )
        ramp = SubElement(
            SubElement(renderer, "rastershader"), "colorrampshader", colorRampType="INTERPOLATED",
            classificationMode="1", clip="0", minimumValue=low, maximumValue=high,
        )  # fmt: skip
        cycle = (*PHASE_COLOURS, PHASE_COLOURS[0])
        for number, colour in enumerate(cycle):
            value = -pi + 2 * pi * number / (len(cycle) - 1)
            SubElement(ramp, "item", color=colour, alpha="255", value=f"{value:.8f}", label=f"{value:.2f}")
    elif variable.name in MASK_VARIABLES:
        palette = SubElement(SubElement(pipe, "rasterrenderer", common, type="paletted"), "colorPalette")
        names = str(variable.attributes["flag_meanings"]).split()
        # code 0 has no entry, and so is not drawn
        for code, (name, colour) in enumerate(zip(names[1:], _MASK_COLOURS, strict=False), 1):
            SubElement(palette, "paletteEntry", value=str(code), color=colour, alpha="70", label=name)
    elif variable.name == "insar_coherence":
        renderer = SubElement(
            pipe, "rasterrenderer", common, type="singlebandgray", grayBand="1", gradient="BlackToWhite"
        )
        stretch = SubElement(renderer, "contrastEnhancement")
        for name, limit in (("minValue", "0"), ("maxValue", "255"), ("algorithm", "StretchToMinimumMaximum")):
            SubElement(stretch, name).text = limit
    else:
        SubElement(
            pipe, "rasterrenderer", common, type="hillshade", angle="45", azimuth="315", multidirection="0",
            zfactor=str(_METRES_TO_DEGREES),
        )  # fmt: skip


def _add_time(root: Element, properties: Element, days: Sequence[date]) -> None:
    """Set the temporal controller: from the first to the last day, in steps of the shortest interval."""
    step = min(((later - earlier).days for earlier, later in pairwise(days)), default=_DAYS_STEP)
    start, end = f"{days[0]}T00:00:00Z", f"{days[-1]}T23:59:59Z"
    times = SubElement(
        root,
        "ProjectTimeSettings",
        timeStep=str(step),
        timeStepUnit="d",
        frameRate="1",
        cumulativeTemporalRange="0",
    )
    span = SubElement(times, "TemporalRange")
    SubElement(span, "start").text = start
    SubElement(span, "end").text = end
    controller = SubElement(properties, "TemporalControllerWidget")
    SubElement(controller, "NavigationMode", type="int").text = "1"  # animated
    SubElement(controller, "StartDateTime", type="QString").text = start
    SubElement(controller, "EndDateTime", type="QString").text = end


def _add_extent(parent: Element, grid: Grid) -> None:
    extent = SubElement(parent, "extent")
    west, south, east, north = grid.bounds
    for name, edge in (("xmin", west), ("ymin", south), ("xmax", east), ("ymax", north)):
        SubElement(extent, name).text = repr(edge)


def _add_crs(parent: Element) -> None:
    system = SubElement(parent, "spatialrefsys")
    SubElement(system, "wkt").text = WGS84_WKT
    SubElement(system, "srid").text = "4326"
    SubElement(system, "authid").text = "EPSG:4326"


def _last_day(image: GeotiffLayer) -> date | None:
    text = image.tags.get("SECONDARY_DATE") or image.tags.get("DATE")
    return date.fromisoformat(text) if text else None


def _layer_id(image: GeotiffLayer) -> str:
    # QGIS replaces ids of up to 20 characters, and then no longer finds them in the tree
    return f"{image.variable.quantity}_{_title(image)}_{image.tags['FRAME']}"


def _title(image: GeotiffLayer) -> str:
    return image.tags.get("PAIR") or image.tags.get("DATE") or image.variable.quantity


def _source(image: GeotiffLayer, frame: str) -> str:
    return f"./{image.path.removeprefix(f'{frame}/')}"
