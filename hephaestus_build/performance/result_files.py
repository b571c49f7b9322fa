"""What every measurement says of itself, and where it is written."""

from __future__ import annotations

import json
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hephaestus_build import __version__
from hephaestus_build.cli.console import out, print_json
from hephaestus_build.core.settings import load_settings


def result_header(benchmark: str, **machine: str) -> dict[str, Any]:
    """Return the head of a result: what was measured, when, by which version and where.

    Parameters
    ----------
    benchmark : str
        Its name.
    **machine : str
        Versions that matter beside Python's.
    """
    return {
        "benchmark": benchmark,
        "simulated": True,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": __version__,
        "machine": {
            "cores": load_settings().worker_count,
            "system": platform.system(),
            "processor": platform.machine(),
            "python": platform.python_version(),
            **machine,
        },
    }


def write_results(result: dict[str, Any], page: str, folder: Path, *, as_json: bool) -> None:
    """Write a result as JSON and as a page of Markdown, and show one of them."""
    from rich.markdown import Markdown

    name = result["benchmark"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / f"{name}.md").write_text(page)
    if as_json:
        print_json(result)
    else:
        out.print(Markdown(page))
        out.print(f"written to {folder / name}.json and {name}.md", markup=False)
