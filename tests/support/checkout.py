"""Where the checkout is, for tests that start programs of it or read its documents."""

from pathlib import Path

#: Folder of these helpers; programs that tests start find them through PYTHONPATH.
SUPPORT = Path(__file__).resolve().parent
ROOT = SUPPORT.parents[1]
#: The packages that the wheel installs.
PACKAGES = (
    ROOT / "hephaestus_build",
    ROOT / "flows" / "hephaestus_flows",
    ROOT / "baselines" / "hephaestus_baselines",
)
