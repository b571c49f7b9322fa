"""From the raw LiCSAR and ERA5 archives to machine-learning cubes of volcanic unrest."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("hephaestus-build")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0.0.0"
