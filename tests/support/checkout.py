"""Paths of the checkout, for tests that start its programs or read its documents."""

from pathlib import Path

#: Folder of these helpers; programs started by tests import them through PYTHONPATH.
SUPPORT = Path(__file__).resolve().parent
ROOT = SUPPORT.parents[1]
#: Packages that the wheel installs.
PACKAGES = (
    ROOT / "hephaestus_build",
    ROOT / "flows" / "hephaestus_flows",
    ROOT / "baselines" / "hephaestus_baselines",
)
