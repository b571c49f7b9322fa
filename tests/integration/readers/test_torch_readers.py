"""Readers of those who train with torch: the published loader's pattern, and torchgeo."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from hephaestus_build.core.frames import Pair
from reader_availability import import_reader, require_python
from stored_arrays import digest

#: What these programs warn of is theirs.
pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_published_reading_pattern_reads_a_series(cube):
    """As Hephaestus Minicubes are trained on: whole frames of a series by date, stacked and cropped."""
    loader = import_reader("hephaestus_baselines.performance.loader_benchmark")
    primary, secondary = cube.slot(stored=True)
    steps = slice(secondary, secondary + loader.STEPS_PER_SERIES)  # pairs without data among them
    with xr.open_zarr(cube.link) as opened:
        days = {
            name: opened[name].values.astype("M8[D]").astype(object) for name in opened.dims if "date" in name
        }
    pairs = [Pair(days["primary_date"][primary], day) for day in days["secondary_date"][steps]]
    item = SimpleNamespace(members=[SimpleNamespace(pair=pair) for pair in pairs])
    dataset = loader.PublishedDataset(cube.link, [item], (64, 64), bare=False, size=64)
    images, masks = (tensor.numpy() for tensor in dataset[0])
    expected = []
    for name in loader.LOADER_CHANNELS:
        values = cube.values[name]
        if values.ndim == 4:
            values = values[primary, steps]
        elif values.ndim == 3:
            values = values[primary] if name.startswith("primary") else values[steps]
        expected.append(np.broadcast_to(values[..., :64, :64], (len(pairs), 64, 64)))
    assert digest(images) == digest(np.stack(expected, 1).reshape(-1, 64, 64).astype("f4"))
    mask = cube.values["deformation_mask"][primary, steps, :64, :64]
    assert digest(masks) == digest(np.where(mask == 2, 1, mask).astype("i8"))


def test_torchgeo_does_not_find_a_zarr_store(cube):
    """It looks for files, and passes over folders; docs/readers.md has the line that works."""
    datasets = import_reader("torchgeo.datasets")
    with pytest.raises(datasets.DatasetNotFoundError):
        datasets.XarrayDataset(cube.link, data_vars=["insar_difference"])


def test_torchgeo_reads_a_series_as_netcdf(cube, tmp_path):
    require_python(3, 12)
    datasets = import_reader("torchgeo.datasets")
    cube.series().to_netcdf(tmp_path / "series.nc")
    dataset = datasets.XarrayDataset(tmp_path / "series.nc", data_vars=["insar_difference"])
    found = dataset[dataset.bounds]["image"].numpy()
    assert digest(found[0]) == digest(cube.values["insar_difference"][cube.slot(stored=True)[0]])
    assert dataset.crs.to_epsg() == 4326
