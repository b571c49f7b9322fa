"""Tests of `compare` on published cubes that no code of the project wrote, and of what their loader reads."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.export.selection import open_export_selection
from hephaestus_build.export.zarr_v2 import export_zarr_v2
from json_page import differences
from published_cubes import PublishedFrame, pack_cube, write_published_cube
from published_loader import CHANNELS, load_item
from toy_cube import FRAME, toy_cube
from toy_published import PAIRS, toy_published

#: Series of one primary date, and a pair alone.
ITEMS = (PAIRS[:2], PAIRS[2:], (PAIRS[1], PAIRS[1]), PAIRS[3:])
STRIPMAP = "144A_SM_REUN_S6"


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory) -> Path:
    return toy_cube(tmp_path_factory.mktemp("rebuilt"), pairs=PAIRS)


@pytest.fixture(scope="module")
def exported(rebuilt, tmp_path_factory) -> Path:
    return export_zarr_v2(open_export_selection(rebuilt), tmp_path_factory.mktemp("zarr2"))


@pytest.fixture
def compare(hephaestus):
    """Return a function that compares two cubes and returns the exit code, the JSON and the summary."""

    def call(first: Path, second: Path):
        code, out, _ = hephaestus("compare", str(first), str(second), "--json")
        found = json.loads(out)
        assert differences("compare", found) == []
        return code, found, hephaestus("compare", str(first), str(second))[1]

    return call


@pytest.mark.parametrize("which", ["rebuilt", "exported"])
def test_the_published_loader_gives_the_same_tensors(which, request, tmp_path):
    ours = request.getfixturevalue(which)
    write_published_cube(toy_published(), tmp_path)
    steps = {name: variable.step or 0.0 for name, variable in cube_schema().variables.items()}
    for seed, members in enumerate(ITEMS):
        image, labels = load_item(tmp_path, FRAME, members, 32, seed)
        other, other_labels = load_item(ours.parent, FRAME, members, 32, seed)
        assert image.shape == other.shape == (9 * len(members), 32, 32)
        np.testing.assert_array_equal(labels, other_labels)
        for channel, name in enumerate(CHANNELS * len(members)):
            np.testing.assert_allclose(image[channel], other[channel], rtol=0, atol=steps[name])


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"consolidated": False, "fixed_texts": True},
        {"chunks": {"primary_date": 2, "secondary_date": 3, "latitude": 31, "longitude": 17}},
    ],
    ids=["defaults", "texts of fixed length", "chunks of several images"],
)
def test_a_rebuilt_cube_agrees_with_a_published_one(rebuilt, compare, tmp_path, form):
    code, found, told = compare(rebuilt, write_published_cube(toy_published(), tmp_path, **form))
    assert (code, found["findings"]) == (0, [])
    assert len(found["pairs"]) == len(PAIRS)
    assert "they agree" in told
    noted = {note["where"]: note["what"] for note in found["notes"]}
    assert "within the rounding of 1" in noted["primary_date_surface_pressure"]
    assert 0 < found["atmosphere"]["primary_date_surface_pressure"] <= 1
    assert "int32 and int64" in noted["unique_id"]
    if "chunks" in form:
        assert "of 2 x 3 x 31 x 17" in noted["chunks"]


def with_images(content: PublishedFrame, variable: str, change) -> PublishedFrame:
    pairs = {
        name: replace(pair, images={**pair.images, variable: change(pair.images[variable])})
        for name, pair in content.pairs.items()
    }
    return replace(content, pairs=pairs)


def without_a_pair(content: PublishedFrame) -> PublishedFrame:
    return replace(content, pairs={name: pair for name, pair in content.pairs.items() if name != PAIRS[0]})


def shifted(content: PublishedFrame) -> PublishedFrame:
    return replace(content, longitudes=content.longitudes + 0.003)


def with_swapped_dates(content: PublishedFrame) -> PublishedFrame:
    pairs = {"_".join(reversed(name.split("_"))): pair for name, pair in content.pairs.items()}
    return with_images(replace(content, pairs=pairs), "insar_difference", np.negative)


def without_rows(content: PublishedFrame) -> PublishedFrame:
    def cut(values):
        return values[..., :-5, :]

    pairs = {
        name: replace(pair, images={variable: cut(image) for variable, image in pair.images.items()})
        for name, pair in content.pairs.items()
    }
    fields = {day: cut(field) for day, field in content.atmosphere.items()}
    return replace(
        content, latitudes=content.latitudes[:-5], dem=cut(content.dem), pairs=pairs, atmosphere=fields
    )


def percent(values: np.ndarray) -> np.ndarray:
    return np.round(values / 255 * 100).astype("u1")


#: What is done to a published cube, how it is written, what a finding is about, and words of it.
DAMAGES = {
    "missing pair": (without_a_pair, {}, "pairs", f"1 pair in the first alone: {PAIRS[0]}"),
    "shifted grid": (shifted, {}, "grid", "3.000 pixels east"),
    "other size": (without_rows, {}, "grid", "60 x 70 and 55 x 70 pixels"),
    "sign": (
        lambda content: with_images(content, "insar_difference", np.negative),
        {},
        "insar_difference",
        "sign swapped in 4 of 4 pairs, as if primary and secondary were exchanged: the wrapped sum is zero",
    ),
    "dates": (
        with_swapped_dates,
        {},
        "pairs",
        "primary and secondary dates swapped in 4 pairs of the second",
    ),
    "coherence 0 to 1": (
        lambda content: with_images(content, "insar_coherence", lambda one: one / 255),
        {"dtypes": {"insar_coherence": "f4"}},
        "insar_coherence",
        "on another scale in 4 of 4 pairs: the second is 0 to 1 in place of 0 to 255",
    ),
    "coherence in percent": (
        lambda content: with_images(content, "insar_coherence", percent),
        {},
        "insar_coherence",
        "on another scale in 4 of 4 pairs: the second is 0 to 100 in place of 0 to 255",
    ),
    "dtype": (
        lambda content: content,
        {"dtypes": {"insar_difference": "f8"}},
        "insar_difference",
        "stored as float32 and float64",
    ),
}


@pytest.mark.parametrize(("damage", "form", "subject", "words"), DAMAGES.values(), ids=DAMAGES)
def test_known_damages_of_a_published_cube_are_named(
    rebuilt, compare, tmp_path, damage, form, subject, words
):
    path = write_published_cube(damage(toy_published()), tmp_path, **form)
    code, found, told = compare(rebuilt, path)
    assert code == 1
    assert any(one["where"] == subject and words in one["what"] for one in found["findings"])
    assert " ".join(words.split()) in " ".join(told.split())
    assert not any(one["expected"] for one in found["findings"])


def test_swapped_dates_do_not_hide_the_sign(rebuilt, compare, tmp_path):
    code, found, _ = compare(rebuilt, write_published_cube(with_swapped_dates(toy_published()), tmp_path))
    assert code == 1
    assert [one["pair"] for one in found["pairs"]] == list(PAIRS)
    assert {one["phase"]["rule"] for one in found["pairs"]} == {"sign swapped"}
    assert all(one["coherence"]["equal"] for one in found["pairs"])


def test_masks_of_stripmap_frames_are_expected_to_differ_and_others_are_not(compare, tmp_path):
    moved = with_images(
        toy_published(pairs=(PAIRS[1],), frame=STRIPMAP), "deformation_mask", lambda one: np.roll(one, 2, 1)
    )
    ours = toy_cube(tmp_path / "ours", pairs=(PAIRS[1],), frame=STRIPMAP)
    code, found, told = compare(ours, write_published_cube(moved, tmp_path))
    assert code == 1
    (finding,) = found["findings"]
    assert finding["where"] == "deformation_mask"
    assert "Stripmap" in finding["expected"]
    assert "expected:" in told
    ordinary = replace(moved, frame=FRAME)
    ours = toy_cube(tmp_path / "ordinary", pairs=(PAIRS[1],))
    code, found, _ = compare(ours, write_published_cube(ordinary, tmp_path))
    assert (code, [one["expected"] for one in found["findings"]]) == (1, [""])


def test_a_tar_file_is_compared_without_unpacking_it(rebuilt, compare, tmp_path):
    tar = pack_cube(write_published_cube(toy_published(), tmp_path), tmp_path / "tar" / f"{FRAME}.tar")
    code, found, _ = compare(rebuilt, tar)
    assert (code, found["findings"], found["frame"]) == (0, [], FRAME)
    assert found["second"] == f"{tar}/{FRAME}.zarr"
    assert [path.name for path in tar.parent.iterdir()] == [tar.name]


def test_one_of_several_cubes_in_a_tar_file_is_named_by_its_folder(rebuilt, compare, hephaestus, tmp_path):
    tar = tmp_path / "all.tar"
    with tarfile.open(tar, "w") as archive:
        for frame in (FRAME, STRIPMAP):
            archive.add(
                write_published_cube(toy_published(frame=frame), tmp_path / frame), f"minicubes/{frame}.zarr"
            )
    within = tar / f"minicubes/{FRAME}.zarr"
    code, found, _ = compare(rebuilt, within)
    assert (code, found["findings"], found["second"]) == (0, [], str(within))
    code, _, err = hephaestus("compare", str(rebuilt), str(tar))
    assert (code, err.count("\n")) == (2, 1)
    assert f"which holds {tar}/minicubes/{STRIPMAP}.zarr, {within}; name one of them" in err
    code, _, err = hephaestus("compare", str(rebuilt), str(tar / "minicubes/other.zarr"))
    assert (code, "is no cube within the tar file all.tar" in err) == (2, True)


@pytest.mark.parametrize(
    ("share", "expected"), [(0.3, "is no whole tar file"), (0.9, "is no whole tar file")]
)
def test_a_tar_file_that_is_cut_is_not_compared(rebuilt, hephaestus, tmp_path, share, expected):
    tar = pack_cube(write_published_cube(toy_published(), tmp_path), tmp_path / f"{FRAME}.tar")
    content = tar.read_bytes().rstrip(b"\0")
    tar.write_bytes(content[: int(len(content) * share)])
    code, out, err = hephaestus("compare", str(rebuilt), str(tar), "--json")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert expected in err
    assert "copy it again whole" in err


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"CDF\2", "a NetCDF file"),
        (b"\x89HDF\r\n\x1a\n", "to_zarr"),
        (b"\x1f\x8b\x08", "`gunzip -k "),
        (b"", "cut"),
    ],
)
def test_a_file_of_another_kind_leads_to_what_helps(rebuilt, hephaestus, tmp_path, content, expected):
    file = tmp_path / "cube.nc"
    file.write_bytes(content)
    code, out, err = hephaestus("compare", str(rebuilt), str(file), "--json")
    assert code in (1, 2)
    assert (out, err.count("\n")) == ("", 1)
    assert expected in err


def test_an_export_as_geotiff_leads_to_one_that_is_a_cube(rebuilt, hephaestus, tmp_path):
    out = tmp_path / "tiff"
    words = ("--to", "geotiff", "--out", str(out), "--pair", PAIRS[0], "--variables", "insar_difference")
    assert hephaestus("export", str(rebuilt), *words)[0] == 0
    code, _, err = hephaestus("compare", str(rebuilt), str(out / FRAME))
    assert (code, err.count("\n")) == (2, 1)
    assert "--to zarr2" in err
