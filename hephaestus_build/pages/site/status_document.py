"""``status.json`` of a site: how all frames stand, for programs (``schemas/site_status.json``)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from typing import Any

from hephaestus_build.pages.site.site_values import SiteFrame


def make_status_document(
    frames: Sequence[SiteFrame], *, simulated: bool, version: str, written: str
) -> dict[str, Any]:
    """Return the status of all frames as JSON values.

    Parameters
    ----------
    frames : sequence of SiteFrame
        All frames.
    simulated : bool
        Whether the site is of simulated cubes.
    version, written : str
        Version of this program; time of writing, UTC, ISO 8601. Latencies are counted to that day.
    """
    today = date.fromisoformat(written[:10])
    return {
        "format": "hephaestus-site-status/1",
        "written": written,
        "version": version,
        "simulated": simulated,
        "frames": [_frame_values(frame, today) for frame in frames],
    }


def encode_status(document: dict[str, Any]) -> bytes:
    """Return the document as JSON, a frame a line."""
    head = {name: value for name, value in document.items() if name != "frames"}
    lines = ",\n".join(
        json.dumps(one, ensure_ascii=False, separators=(",", ":")) for one in document["frames"]
    )
    return (json.dumps(head, ensure_ascii=False)[:-1] + f', "frames": [\n{lines}\n]}}\n').encode()


def _frame_values(frame: SiteFrame, today: date) -> dict[str, Any]:
    digest = frame.digest
    return {
        "frame": frame.frame,
        "page": f"frames/{frame.frame}.html" if frame.page else None,
        "simulated": frame.simulated,
        "direction": frame.direction,
        "track": frame.track,
        "bounds": [round(edge, 4) for edge in digest.bounds] if digest.bounds else None,
        "approximate": digest.approximate,
        "volcanoes": [
            {
                "name": one.name,
                "latitude": one.latitude,
                "longitude": one.longitude,
                "page": f"volcanoes/{one.slug}.html",
            }
            for one in digest.volcanoes
        ],
        "generation": frame.generation,
        "built": frame.built or None,
        "newest": frame.newest or None,
        "latency_days": frame.latency(today),
        "pairs": frame.pairs,
        "annotated": frame.annotated,
        "owed": frame.owed,
        "accepted": frame.accepted,
        "preliminary": frame.preliminary,
        "problem": frame.problem or None,
        "arrived": [
            {"pair": pair.name, "arrived": pair.arrived or None, "deformation": pair.deformation}
            for pair in digest.pairs
        ],
    }
