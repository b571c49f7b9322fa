"""Paths of the checkout, for tests that start its programs or read its documents."""

import re
from pathlib import Path

#: Folder of these helpers; programs started by tests import them through PYTHONPATH.
SUPPORT = Path(__file__).resolve().parent
ROOT = SUPPORT.parents[1]
# What tools keep in the folder from which they are started.
_KEPT_BY_TOOLS = re.compile(r"\..*|__pycache__|.*\.egg-info|dist|uv\.lock")
#: Packages that the wheel installs.
PACKAGES = (
    ROOT / "hephaestus_build",
    ROOT / "flows" / "hephaestus_flows",
    ROOT / "baselines" / "hephaestus_baselines",
)


def entries_of(folder: Path = ROOT) -> set[str]:
    """Return the names in a folder, without those of files that tools keep there."""
    return {item.name for item in folder.iterdir() if not _KEPT_BY_TOOLS.fullmatch(item.name)}
