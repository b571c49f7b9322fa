"""Artifacts of a flow run: a table of the cube's content and missing products, and its picture."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from prefect.artifacts import create_image_artifact, create_table_artifact

from hephaestus_build.core.frames import Frame
from hephaestus_build.core.provenance import Outcome
from hephaestus_build.cube.granules import Granule
from hephaestus_build.pipeline.result import BuildResult
from hephaestus_build.report import markdown

_KIND_LABELS = {
    "pair": "interferograms",
    "mask": "annotations",
    "epoch": "ERA5 dates",
    "overview": "overviews",
    "dem": "DEM",
}
_MAX_LISTED_PRODUCTS = 20  # owed products named one by one; the cube's provenance names all
_PICTURE_WIDTH = 760  # pixels; the picture travels in the artifact itself, so it is made small


def artifact_key(kind: str, name: object) -> str:
    """Return a valid key of an artifact: lower case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", f"{kind}-{name}".lower()).strip("-")


def granule_table_rows(granules: Iterable[Granule], accepted: Collection[str] = ()) -> list[dict[str, Any]]:
    """Return one row a kind of granule: how many are in the cube, how the others ended, and the size on disk.

    The granules in `accepted`, by key, are counted apart from those that are owed.
    """
    rows = []
    granules = list(granules)
    for kind, name in _KIND_LABELS.items():
        mine = [granule for granule in granules if granule.kind == kind]
        row: dict[str, Any] = {"": name, "in the cube": sum(granule.is_complete for granule in mine)}
        for outcome in Outcome:
            if not outcome.ok:
                row[str(outcome)] = sum(granule.outcome is outcome for granule in mine)
        size = sum(item.size for granule in mine for item in granule.objects.values())
        owed = [granule.key for granule in mine if granule.needs_retry]
        row["accepted"] = sum(key in accepted for key in owed)
        row["owed"] = len(owed) - row["accepted"]
        rows.append({**row, "MB": round(size / 1e6, 1)})
    return rows


def describe_result(result: BuildResult) -> str:
    """Return in Markdown where the cube is, how it is opened, and what is owed."""
    mark = ", simulated" if result.simulated else ""
    news = "" if result.published else "nothing new, "
    lines = [
        f"**{markdown.escape_markdown(result.frame)}**{mark}: {news}generation {result.generation}",
        markdown.code_span(f"hephaestus_build.open_cube({str(result.path)!r})"),
    ]
    owed = [
        markdown.escape_markdown(f"{item.product}: {item.outcome} ({item.detail})") for item in result.owed
    ]
    if owed:
        more = [f"and {len(owed) - _MAX_LISTED_PRODUCTS} more"] if len(owed) > _MAX_LISTED_PRODUCTS else []
        lines.append(
            "\n".join(["owed:", "", *(f"- {line}" for line in (*owed[:_MAX_LISTED_PRODUCTS], *more))])
        )
    if result.accepted:
        lines.append(f"accepted as absent: {len(result.accepted)}")
    return "\n\n".join(lines)


def create_cube_table_artifact(result: BuildResult, granules: Iterable[Granule]) -> None:
    """Create the artifact with the table of a cube."""
    accepted = {item.unit for item in result.accepted} - {item.unit for item in result.owed}
    create_rows_artifact(
        granule_table_rows(granules, accepted), artifact_key("cube", result.frame), describe_result(result)
    )


def create_rows_artifact(rows: Iterable[Mapping[str, Any]], key: str, description: str | None = None) -> None:
    """Create an artifact with a table; Markdown in its cells is escaped."""
    table = [{name: markdown.table_cell(value) for name, value in row.items()} for row in rows]
    create_table_artifact(table=table, key=key, description=description)


def create_quicklook_artifact(frame: Frame, png: Path) -> None:
    """Create an artifact with a small copy of a cube's picture."""
    buffer = io.BytesIO()
    with Image.open(png) as picture:
        picture.thumbnail((_PICTURE_WIDTH, 4 * _PICTURE_WIDTH))
        picture.convert("RGB").save(buffer, "WEBP", quality=75)
    url = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    create_image_artifact(
        image_url=url, key=artifact_key("picture", frame), description=markdown.code_span(png)
    )
