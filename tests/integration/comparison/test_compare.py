"""Tests of `compare`: what is equal is called equal, and each kind of difference is named."""

import json
import math
import shutil
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import xarray as xr

from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.export.selection import open_export_selection
from hephaestus_build.export.zarr_v2 import export_zarr_v2
from json_page import differences
from toy_cube import PAIRS, toy_cube

AXES = ("primary_date", "secondary_date")
FIRST = {
    axis: np.datetime64(f"{day[:4]}-{day[4:6]}-{day[6:]}")
    for axis, day in zip(AXES, PAIRS[0].split("_"), strict=True)
}
PRESSURE = "primary_date_surface_pressure"


@pytest.fixture(scope="module")
def cube(tmp_path_factory) -> Path:
    return toy_cube(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def exported(cube, tmp_path_factory) -> Path:
    return export_zarr_v2(open_export_selection(cube), tmp_path_factory.mktemp("zarr2"))


@pytest.fixture
def published(exported, tmp_path):
    """Return a function that writes a changed copy in Zarr v2, as xarray and nothing else lays it out."""

    def write(change=lambda dataset: dataset, **chunks: int) -> Path:
        dataset = change(xr.open_zarr(exported, chunks=None).load())
        for name in dataset.variables:
            if dataset[name].dtype.kind == "T":
                dataset[name] = dataset[name].astype(object)
        path = tmp_path / "published.zarr"
        dataset = dataset.drop_encoding()
        encoding = {
            str(name): {"chunks": [chunks.get(str(dim), size) for dim, size in variable.sizes.items()]}
            for name, variable in dataset.data_vars.items()
            if chunks and variable.dims[-2:] == ("latitude", "longitude")
        }
        dataset.to_zarr(path, zarr_format=2, mode="w", encoding=encoding)
        return path

    return write


@pytest.fixture
def compare(hephaestus):
    """Return a function that compares two cubes and returns the exit code and the JSON."""

    def call(first: Path, second: Path):
        code, out, err = hephaestus("compare", str(first), str(second), "--json")
        if not out:
            return code, err
        found = json.loads(out)
        assert differences("compare", found) == []
        return code, found

    return call


def by_subject(found) -> dict[str, str]:
    return {finding["where"]: finding["what"] for finding in found["findings"]}


def change(name: str, how, **place):
    """Return a function that replaces a variable, or its values at one place."""

    def replace(dataset: xr.Dataset) -> xr.Dataset:
        if place:
            dataset[name].loc[place] = how(dataset[name].loc[place])
        else:
            dataset[name] = how(dataset[name])
        return dataset

    return replace


def test_an_export_agrees_with_its_cube_in_either_order(cube, exported, compare):
    for pair in ((cube, exported), (exported, cube), (cube, cube)):
        code, found = compare(*pair)
        assert (code, found["agrees"], found["findings"]) == (0, True, [])
        assert [one["pair"] for one in found["pairs"]] == list(PAIRS)
        assert all(one["equal"] and one["phase"]["pixels"] == 60 * 70 for one in found["pairs"])
        assert found["simulated"] is True
        assert len(found["atmosphere"]) == 6
        assert set(found["atmosphere"].values()) == {0.0}


@pytest.mark.parametrize(
    "chunks", [{}, {"latitude": 20, "longitude": 33}, {"primary_date": 2, "secondary_date": 2}]
)
def test_other_chunks_make_no_difference(cube, published, compare, chunks):
    code, found = compare(cube, published(**chunks))
    assert (code, found["findings"]) == (0, [])


def test_a_cube_with_its_first_row_in_the_south_agrees(cube, published, compare):
    code, found = compare(cube, published(lambda dataset: dataset.isel(latitude=slice(None, None, -1))))
    assert (code, found["findings"]) == (0, [])


DIFFERENCES = {
    "phase, sign": (change("insar_difference", lambda one: -one), "insar_difference", "sign swapped"),
    "phase, offset": (
        change("insar_difference", lambda one: one + np.float32(0.5), **FIRST),
        "insar_difference",
        "up to 0.5",
    ),
    "phase, dtype": (
        change("insar_difference", lambda one: one.astype("f8")),
        "insar_difference",
        "float32 and float64",
    ),
    "coherence, scale": (
        change("insar_coherence", lambda one: (one / np.float32(255)).astype("f4")),
        "insar_coherence",
        "0 to 1",
    ),
    "coherence, values": (
        change("insar_coherence", lambda one: 255 - one, **FIRST),
        "insar_coherence",
        f"most in {PAIRS[0]}",
    ),
    "heights": (change("dem", lambda one: one + 3), "dem", "up to 3"),
    "no heights": (lambda dataset: dataset.drop_vars("dem"), "dem", "missing in the second"),
    "mask, empty": (change("deformation_mask", lambda one: one * 0), "deformation_mask", "overlap 0.000"),
    "mask, codes": (
        change("intensity_level_mask", lambda one: xr.where(one > 0, 4, 0, keep_attrs=True).astype("u1")),
        "intensity_level_mask",
        "for 4",
    ),
    "text": (change("caption", lambda one: one + "x", **FIRST), "caption", f"as in {PAIRS[0]}"),
    "flag": (
        change("glacier_fringes", lambda one: one + 1, **FIRST),
        "glacier_fringes",
        "differs in 1 pair",
    ),
    "atmosphere": (change(PRESSURE, lambda one: one + 2), PRESSURE, "up to 2 Pa"),
    "pair": (
        change("valid_date_pair", lambda one: one & False, **FIRST),
        "pairs",
        f"1 pair in the first alone: {PAIRS[0]}",
    ),
}


@pytest.mark.parametrize(("damage", "subject", "words"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_each_kind_of_difference_is_named(cube, published, compare, damage, subject, words):
    code, found = compare(cube, published(damage))
    assert code == 1
    named = by_subject(found)
    assert words in named.pop(subject)
    assert not named  # and nothing else


def test_rounding_of_the_atmosphere_is_no_difference(cube, published, compare):
    rounded = change(PRESSURE, lambda one: one + np.float32(0.9))
    code, found = compare(cube, published(rounded))
    assert (code, found["findings"]) == (0, [])
    assert math.isclose(found["atmosphere"][PRESSURE], 0.9, rel_tol=0.02)


def test_a_field_that_is_missing_at_some_date_is_no_rounding(cube, published, compare):
    lost = change(PRESSURE, lambda one: one * np.nan, primary_date=FIRST["primary_date"])
    code, found = compare(cube, published(lost))
    assert code == 1
    assert "is missing where the other has it" in by_subject(found)[PRESSURE]
    assert found["atmosphere"][PRESSURE] is None


def test_heights_of_another_source_are_expected_to_differ(cube, published, compare):
    def other(dataset: xr.Dataset) -> xr.Dataset:
        dataset["dem"] = dataset["dem"] + 3
        return dataset.assign_attrs(dem_source="SRTM")

    code, found = compare(cube, published(other))
    assert code == 1
    (finding,) = found["findings"]
    assert "two sources" in finding["expected"]
    assert "SRTM" in finding["expected"]


def shifted(rows: float, columns: float):
    def move(dataset: xr.Dataset) -> xr.Dataset:
        dy, dx = (float(abs(dataset[name].diff(name)[0])) for name in ("latitude", "longitude"))
        return dataset.assign_coords(
            latitude=dataset.latitude - rows * dy, longitude=dataset.longitude + columns * dx
        )

    return move


def test_a_grid_that_is_shifted_by_whole_pixels_is_named_and_the_rest_compared(cube, published, compare):
    def cut(dataset: xr.Dataset) -> xr.Dataset:
        return dataset.isel(latitude=slice(3, None), longitude=slice(None, -2))

    code, found = compare(cube, published(cut))
    assert code == 1
    assert set(by_subject(found)) == {"grid"}
    assert (round(found["grid"]["south"], 6), round(found["grid"]["east"], 6)) == (3, 0)
    assert all(one["equal"] and one["phase"]["pixels"] == 57 * 68 for one in found["pairs"])


def test_coordinates_that_are_shifted_while_the_pixels_stay_are_named(cube, published, compare):
    code, found = compare(cube, published(shifted(0, 2)))
    assert code == 1
    assert "2.000 pixels east" in by_subject(found)["grid"]
    assert "insar_difference" in by_subject(found)  # no pixel is where it was


def test_grids_whose_pixels_do_not_meet_are_not_compared(cube, published, compare):
    code, found = compare(cube, published(shifted(0.4, 0)))
    assert code == 1
    assert "images are not compared" in by_subject(found)["grid"]
    assert all(one["phase"] is None for one in found["pairs"])


def test_longitudes_of_another_turn_are_the_same(cube, published, compare):
    code, found = compare(
        cube, published(lambda dataset: dataset.assign_coords(longitude=dataset.longitude + 360))
    )
    assert (code, found["findings"]) == (0, [])


def test_people_read_a_table_and_a_summary_of_ten_lines(cube, published, hephaestus):
    def worsen(dataset: xr.Dataset) -> xr.Dataset:
        names = ("insar_difference", "insar_coherence", "deformation_mask", "caption", PRESSURE, "no_info")
        return dataset.drop_vars(names).assign(dem=dataset["dem"] + 3)

    other = published(worsen)
    code, out, err = hephaestus("compare", str(cube), str(other))
    lines = out.splitlines()
    assert len([line for line in lines if line.startswith(PAIRS[0])]) == 1
    summary = lines[next(index for index, line in enumerate(lines) if "(simulated)" in line) :]
    assert len([line for line in summary if line.strip()]) == 10
    assert "and 4 more: see --json" in out
    assert "they differ" in out
    assert code == 1
    assert "7 findings, 7 of them unexpected" in err


def test_two_frames_are_named_first(cube, published, compare):
    code, found = compare(cube, published(lambda dataset: dataset.assign_attrs(frame="201D_02400_131313")))
    assert code == 1
    (finding,) = found["findings"]
    assert finding["where"] == "frame"
    assert "201D_02400_131313" in finding["what"]


# what a stranger may hand over


def test_a_chunk_that_is_cut_is_named(cube, published, compare):
    path = published()
    chunk = next(file for file in sorted((path / "insar_difference").iterdir()) if file.name[0].isdigit())
    chunk.write_bytes(chunk.read_bytes()[:-3])
    code, err = compare(cube, path)
    assert code == 1
    assert f"insar_difference/{chunk.name}" in err
    assert "copy or unpack it again" in err
    assert err.count("\n") == 1


def edit_array(path: Path, name: str, **values) -> None:
    (path / ".zmetadata").unlink()
    described = path / name / ".zarray"
    described.write_text(json.dumps({**json.loads(described.read_text()), **values}))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"filters": [{"id": "pickle", "protocol": 5}]}, "pickle"),
        ({"dtype": "|O", "filters": [{"id": "vlen-array", "dtype": "<f4"}]}, "vlen-array"),
        ({"compressor": {"id": "snappy"}}, "snappy"),
        ({"chunks": [1, 1, 1 << 20, 1 << 20], "shape": [1, 1, 1 << 20, 1 << 20]}, "its shape is"),
        ({"chunks": [4000, 4000, 60, 70]}, "MiB"),
        ({"dtype": [["a", "<f4"]]}, "metadata of insar_difference"),
        ({"shape": "all"}, "not a list of sizes"),
    ],
)
def test_metadata_that_would_run_or_allocate_something_is_refused(cube, published, compare, values, words):
    path = published()
    edit_array(path, "insar_difference", **values)
    code, err = compare(cube, path)
    assert code == 1
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("compressor", [numcodecs.Zstd(), numcodecs.GZip(), numcodecs.Zlib()])
def test_a_small_chunk_that_decodes_to_much_is_refused(cube, published, compare, compressor):
    path = published()
    edit_array(path, "dem", compressor=compressor.get_config())
    for chunk in (path / "dem").glob("[0-9]*"):
        chunk.write_bytes(compressor.encode(np.zeros(1 << 22, "f4")))
    code, err = compare(cube, path)
    assert code == 1
    assert "would decode to" in err


def test_a_chunk_of_a_foreign_cube_is_not_read_through_a_link(cube, published, compare, tmp_path):
    path = published()
    secret = tmp_path / "secret"
    secret.write_bytes(b"x")
    chunk = next((path / "dem").glob("[0-9]*"))
    chunk.unlink()
    chunk.symlink_to(secret)
    code, err = compare(cube, path)
    assert code == 1
    assert "link" in err


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda dataset: dataset.drop_vars("valid_date_pair"), "valid_date_pair"),
        (lambda dataset: dataset.drop_vars("latitude"), "latitude"),
        (change("insar_difference", lambda one: one.rename(latitude="y")), "dimensions"),
    ],
)
def test_what_is_not_laid_out_like_a_cube_is_named(cube, published, compare, damage, words):
    code, err = compare(cube, published(damage))
    assert code == 1
    assert words in err
    assert err.count("\n") == 1


def test_a_path_without_a_cube_is_wrong_usage(cube, hephaestus, tmp_path):
    code, _, err = hephaestus("compare", str(cube), str(tmp_path / "nothing.zarr"))
    assert code in (1, 2)
    assert err.count("\n") == 1
    shutil.rmtree(tmp_path, ignore_errors=True)


def test_the_cube_is_read_as_it_was_published(cube, exported, compare):
    before = open_pinned_cube(cube).encoding["source"]
    compare(cube, exported)
    assert open_pinned_cube(cube).encoding["source"] == before
