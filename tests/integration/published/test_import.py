"""Tests of `import`: a published cube becomes one here, builds go on from it, and damage is named."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from archives import ALL, FRAME, asked, frame_store_of, objects, rasters, settings_for
from hephaestus_build.core.frames import Pair
from hephaestus_build.cube.granules import GranuleKey
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.schema import cube_schema
from hephaestus_build.export.selection import open_export_selection
from hephaestus_build.export.zarr_v2 import export_zarr_v2
from hephaestus_build.pipeline.build import build
from hephaestus_build.simulation.server import faults
from json_page import differences
from published_cubes import write_published_cube
from published_loader import CHANNELS, load_item
from toy_cube import toy_cube
from toy_published import PAIRS, toy_published

FIRST, SECOND = PAIRS[:2]


@pytest.fixture
def published(tmp_path) -> Path:
    """A cube in the published layout, written without code of the builder."""
    return write_published_cube(toy_published(), tmp_path / "published")


@pytest.fixture
def import_path(hephaestus, tmp_path):
    """Return a function that imports a path and returns the exit code, the only frame's JSON and errors."""

    def call(path: Path, *arguments: str, data: Path | None = None):
        folder = data or tmp_path / "data"
        code, out, err = hephaestus("import", str(path), *arguments, "--data-dir", str(folder), "--json")
        if not out:
            return code, None, err
        found = json.loads(out)
        assert differences("import", found) == []
        [frame] = found["frames"]
        assert frame["exit_code"] == code
        return code, frame, err

    return call


def granules_of(data: Path):
    return frame_store_of(settings_for(data)).published_generation().read_inventory().granules


def stored_pairs(data: Path) -> list[Pair]:
    granules = granules_of(data).values()
    return sorted(granule.pair for granule in granules if granule.kind == "pair" and granule.is_complete)


def changed(path: Path, name: str, how, pair: str | None = None) -> Path:
    """Replace the values of a variable of a Zarr v2 cube, or those of one pair, and return the path."""
    dataset = xr.open_zarr(path, chunks=None, mask_and_scale=False).load()
    if pair is None:
        dataset[name] = how(dataset[name])
    else:
        days = (np.datetime64(f"{day[:4]}-{day[4:6]}-{day[6:]}") for day in pair.split("_"))
        place = dict(zip(("primary_date", "secondary_date"), days, strict=True))
        dataset[name].loc[place] = how(dataset[name].loc[place])
    return rewritten(dataset, path)


def rewritten(dataset: xr.Dataset, path: Path) -> Path:
    for name in dataset.variables:
        if dataset[name].dtype.kind == "T":
            dataset[name] = dataset[name].astype(object)
    shutil.rmtree(path)
    dataset.drop_encoding().to_zarr(path, zarr_format=2, mode="w")
    return path


def test_a_published_cube_is_stored_bit_for_bit_with_its_provenance(
    published, import_path, hephaestus, tmp_path
):
    code, frame, _ = import_path(published)
    assert (code, frame["imported"], frame["source"]) == (0, len(PAIRS), published.name)
    cube = tmp_path / "data/simulated/cubes" / published.name
    code, out, err = hephaestus("compare", str(cube), str(published), "--json")
    found = json.loads(out)
    assert [item for item in found["findings"] if "dtype" not in item["what"]] == [], err
    for granule in granules_of(tmp_path / "data").values():
        for receipt in granule.receipts:
            assert (receipt.origin, receipt.outcome) == ("published", "downloaded")
            assert receipt.file.startswith(f"{published.name}/")
            assert str(tmp_path) not in receipt.file
    assert open_pinned_cube(cube).attrs["imported_from"] == published.name
    assert hephaestus("verify", "--data-dir", str(tmp_path / "data"), "--simulated")[0] == 0
    code, out, _ = hephaestus(
        "inspect", FRAME.id, "--data-dir", str(tmp_path / "data"), "--simulated", "--json"
    )
    assert (code, json.loads(out)["findings"]) == (0, [])
    code, frame, _ = import_path(published)
    assert (code, frame["result"]["published"], frame["result"]["generation"]) == (0, False, 1)


def test_the_hash_in_the_record_is_that_of_the_file_that_was_read(published, import_path, tmp_path):
    from blake3 import blake3

    import_path(published)
    granule = granules_of(tmp_path / "data")[GranuleKey.of_pair(Pair.parse(SECOND))]
    for receipt in granule.receipts:
        content = (published.parent / receipt.file).read_bytes()
        assert (receipt.blake3, receipt.size) == (blake3(content).hexdigest(), len(content))


@pytest.mark.parametrize("exported", [False, True])
def test_the_published_loader_gives_the_same_tensors_of_the_imported_cube(
    exported, published, import_path, tmp_path
):
    import_path(published)
    cube = tmp_path / "data/simulated/cubes" / published.name
    if exported:
        cube = export_zarr_v2(open_export_selection(cube), tmp_path / "again")
    for members in (PAIRS[:2], PAIRS[2:]):
        image, labels = load_item(published.parent, FRAME.id, members, 32, 5)
        other, other_labels = load_item(cube.parent, FRAME.id, members, 32, 5)
        np.testing.assert_array_equal(labels, other_labels)
        for channel, name in enumerate(CHANNELS * len(members)):
            step = cube_schema().variables[name].step or 0.0
            np.testing.assert_allclose(image[channel], other[channel], rtol=0, atol=step)


def test_the_hour_of_the_atmosphere_is_not_invented(published, import_path, tmp_path):
    import_path(published)
    cube = open_pinned_cube(tmp_path / "data/simulated/cubes" / published.name)
    assert np.isnat(cube.era5_time.values).all()
    assert set(cube.era5_expver.values) == {"published"}
    assert np.isfinite(cube.primary_date_surface_pressure.sel(primary_date=cube.primary_date[0])).all()
    assert np.isnan(cube.era5_surface_pressure.values).all()


def test_a_build_after_an_import_fetches_only_what_is_missing(
    whole_cube, upstream, import_path, hephaestus, tmp_path
):
    """The round trip: exported, imported elsewhere, compared; then the archive is asked for one pair."""
    cube = whole_cube / "simulated/cubes" / f"{FRAME}.zarr"
    stored = stored_pairs(whole_cube)
    held_back, kept = stored[-1], stored[:-1]
    exported = export_zarr_v2(open_export_selection(cube), tmp_path / "whole")
    data = tmp_path / "data"
    code, frame, err = import_path(exported, data=data)
    assert (code, frame["imported"]) == (0, len(stored)), err
    mine = data / "simulated/cubes" / f"{FRAME}.zarr"
    assert hephaestus("compare", str(cube), str(mine))[0] == 0

    upstream.clear_log()
    result = build(ALL, settings_for(data))
    assert (result.owed, result.gone, result.retraction) == ((), (), "")
    assert asked(upstream) == set()

    lacking = tmp_path / "lacking"
    partial = export_zarr_v2(open_export_selection(cube), tmp_path / "part")
    dataset = xr.open_zarr(partial, chunks=None).load()
    first, second = (np.datetime64(day) for day in held_back.dates)
    dataset["valid_date_pair"].loc[{"primary_date": first, "secondary_date": second}] = False
    rewritten(dataset, partial)
    code, frame, err = import_path(partial, data=lacking)
    assert (code, frame["imported"]) == (0, len(kept)), err
    upstream.clear_log()
    result = build(ALL, settings_for(lacking))
    assert (result.pairs, result.owed) == (len(stored), ())
    assert asked(upstream) == rasters(held_back)
    granules = granules_of(lacking)
    origins = {pair: granules[GranuleKey.of_pair(pair)].is_imported for pair in stored}
    assert origins == {**dict.fromkeys(kept, True), held_back: False}


def test_pairs_that_the_archive_has_lost_stay_and_are_no_trouble(whole_cube, upstream, import_path, tmp_path):
    exported = export_zarr_v2(
        open_export_selection(whole_cube / "simulated/cubes" / f"{FRAME}.zarr"), tmp_path / "whole"
    )
    import_path(exported)
    before = objects(settings_for(tmp_path / "data"))
    for pair in stored_pairs(whole_cube)[1:]:
        upstream.archive.withdraw(FRAME, pair)
    result = build(ALL, settings_for(tmp_path / "data"))
    assert (result.exit_code, result.gone, result.retraction) == (0, (), "")
    after = objects(settings_for(tmp_path / "data"))
    assert {path for path in before if "insar" in path} <= after.keys()


def scaled(image: xr.DataArray) -> xr.DataArray:
    return (image / np.float32(255)).astype("f4")


def with_value(value: float, dtype: str = ""):
    """Return a function that sets some pixels of an image in the middle."""

    def change(image: xr.DataArray) -> xr.DataArray:
        image = image.astype(dtype) if dtype else image.copy()
        image[..., 30:33, 30:33] = value
        return image

    return change


#: What is damaged in one pair: the variable, the change, and what is said of the pair.
DAMAGED_PAIRS = {
    "phase beyond pi": ("insar_difference", with_value(9.5), "9.5 rad, beyond pi"),
    "infinite phase": ("insar_difference", with_value(np.inf), "9 pixels of the phase are infinite"),
    "no phase": ("insar_difference", lambda image: image * 0, "no data in the phase"),
    "coherence of bits": ("insar_coherence", lambda image: image > 100, "from 0 to 1 in place of 0 to 255"),
}


@pytest.mark.parametrize("damage", DAMAGED_PAIRS)
def test_a_damaged_pair_is_named_left_out_and_owed(damage, published, import_path, tmp_path):
    name, change, said = DAMAGED_PAIRS[damage]
    code, frame, err = import_path(changed(published, name, change, FIRST))
    assert (code, frame["imported"], frame["result"]["pairs"]) == (3, len(PAIRS) - 1, len(PAIRS) - 1)
    [owed] = frame["result"]["owed"]
    assert (owed["unit"], owed["outcome"]) == (f"pair/{FIRST}", "corrupt")
    assert err.count("\n") == 1
    for part in (
        str(FRAME),
        f"{FIRST}.{name}",
        published.name,
        said,
        f"`hephaestus build {FRAME} --data-dir",
    ):
        assert part in err


def test_codes_that_no_mask_has_are_named_and_the_mask_is_owed(published, import_path, tmp_path):
    code, frame, err = import_path(changed(published, "activity_type_mask", with_value(77), SECOND))
    assert (code, frame["imported"], frame["result"]["masks"]) == (3, len(PAIRS), len(PAIRS) - 1)
    assert "activity_type_mask has the codes 77, known are 0 to 6" in err
    assert f"mask/{SECOND}" in err


def test_an_atmosphere_with_gaps_is_named_and_left_to_the_build(published, import_path):
    code, frame, err = import_path(changed(published, "primary_date_surface_pressure", with_value(np.nan)))
    days = {pair.partition("_")[0] for pair in PAIRS}
    assert (code, frame["imported"], len(frame["result"]["owed"])) == (3, len(PAIRS), len(days))
    assert "surface_pressure lacks 9 of 4200 pixels" in err


#: What is wrong with a whole cube: a change of the data set, and what is said.
REFUSED = {
    "another name": (
        lambda cube: cube.rename(insar_difference="phase_difference"),
        "it has no insar_difference, only",
    ),
    "another dimension": (
        lambda cube: cube.assign(insar_coherence=cube.insar_coherence.rename(latitude="rows")),
        "insar_coherence has the dimensions primary_date, secondary_date, rows, longitude",
    ),
    "phase of integers": (
        lambda cube: cube.assign(insar_difference=cube.insar_difference.astype("i2").drop_attrs()),
        "insar_difference is int16, not float32",
    ),
    "coherence of 0 to 1": (
        lambda cube: cube.assign(insar_coherence=scaled(cube.insar_coherence)),
        "the coherence goes from 0 to 1 in place of 0 to 255",
    ),
    "no pairs": (
        lambda cube: cube.assign(valid_date_pair=cube.valid_date_pair * 0),
        "its valid_date_pair marks no pair",
    ),
    "no grid": (lambda cube: cube.drop_vars("latitude"), "it has no coordinate latitude"),
    "another frame": (
        lambda cube: cube.assign_attrs(frame="199D_02214_131313"),
        "it says that it is of the frame 199D_02214_131313",
    ),
    "two places": (
        lambda cube: cube.assign_coords(
            spatial_ref=((), 0, {"GeoTransform": "11.0003 0.001 0.0 20.0007 0.0 -0.001"})
        ),
        "are 1000 columns and 0 rows apart",
    ),
    "degrees that are none": (
        lambda cube: cube.assign_coords(latitude=cube.latitude.values**2),
        "its coordinates go from 397.",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_cube_of_another_kind_is_refused_in_one_line_and_nothing_is_imported(
    fault, published, import_path, tmp_path
):
    change, said = REFUSED[fault]
    dataset = xr.open_zarr(published, chunks=None, mask_and_scale=False).load()
    code, _, err = import_path(rewritten(change(dataset), published))
    assert (code, err.count("\n")) == (1, 1), err
    assert said in err
    assert "nothing was imported" in err or "docs/cube.md" in err
    assert frame_store_of(settings_for(tmp_path / "data")).published_generation() is None


def test_a_cube_on_another_grid_than_that_which_is_here_is_refused(published, import_path, tmp_path):
    assert import_path(published)[0] == 0
    before = objects(settings_for(tmp_path / "data"))
    dataset = xr.open_zarr(published, chunks=None, mask_and_scale=False).load()
    moved = dataset.assign_coords(longitude=dataset.longitude.values + 0.002)
    code, _, err = import_path(rewritten(moved, published))
    assert code == 1
    assert "lies on another grid than the cube here: 70 x 60 pixels, 2 columns and 0 rows off" in err
    assert objects(settings_for(tmp_path / "data")) == before


def test_wider_numbers_and_other_chunks_are_remarked_upon_and_stored_alike(published, import_path, tmp_path):
    import_path(published, data=tmp_path / "plain")
    other = write_published_cube(
        toy_published(), tmp_path / "other", chunks={"primary_date": 2, "latitude": 25, "longitude": 30}
    )
    changed(other, "insar_coherence", lambda image: image.astype("f4"))
    code, frame, _ = import_path(other, data=tmp_path / "other data")
    assert code == 0
    assert any("insar_coherence is float32, not uint8" in remark for remark in frame["remarks"])
    here, there = (objects(settings_for(tmp_path / name)) for name in ("plain", "other data"))
    images = [path for path in here if "insar" in path and not path.endswith(".json")]
    assert len(images) >= 2 * len(PAIRS)
    assert all(here[path] == there[path] for path in images)


def test_chunks_of_many_images_are_read_and_their_hashes_recorded(published, import_path, tmp_path):
    shutil.rmtree(published)
    write_published_cube(
        toy_published(), published.parent, chunks={"primary_date": 2, "latitude": 25, "longitude": 30}
    )
    code, frame, _ = import_path(published)
    assert (code, frame["imported"]) == (0, len(PAIRS))
    assert any("insar_difference in chunks of 2 x 1 x 25 x 30" in remark for remark in frame["remarks"])
    granule = granules_of(tmp_path / "data")[GranuleKey.of_pair(Pair.parse(FIRST))]
    assert granule.receipts[0].notes == ("hash of the hashes of 9 chunks",)


@pytest.mark.parametrize("content", [b"", b"torn", b"\2\1\x21\1" + b"\xff" * 12])
def test_a_damaged_chunk_is_named_with_its_pair_and_the_others_are_imported(
    content, published, import_path, tmp_path
):
    chunk = published / "insar_difference" / "0.0.0.0"
    chunk.write_bytes(content)
    code, frame, err = import_path(published)
    assert (code, frame["imported"]) == (3, len(PAIRS) - 1)
    assert "insar_difference/0.0.0.0" in err or "cannot be decoded" in err
    assert f"pair/{FIRST}" in err


def test_a_link_in_a_store_is_not_followed(published, import_path, tmp_path):
    chunk = published / "insar_difference" / "0.0.0.0"
    chunk.rename(tmp_path / "elsewhere")
    chunk.symlink_to(tmp_path / "elsewhere")
    code, frame, err = import_path(published)
    assert (code, frame["imported"]) == (3, len(PAIRS) - 1)
    assert "a link" in err


def test_a_swapped_sign_and_a_missing_pair_are_named_by_compare(published, import_path, hephaestus, tmp_path):
    cube = toy_cube(tmp_path / "toy", pairs=PAIRS)
    changed(published, "insar_difference", lambda image: -image)
    import_path(published)
    mine = tmp_path / "data/simulated/cubes" / published.name
    code, out, _ = hephaestus("compare", str(cube), str(mine), "--json")
    said = {item["where"]: item["what"] for item in json.loads(out)["findings"]}
    assert code == 1
    assert "sign swapped" in said["insar_difference"]


def test_a_frame_is_needed_only_where_nothing_names_it(published, hephaestus, tmp_path):
    unnamed = published.rename(published.with_name("volcano.zarr"))
    data = ("--data-dir", str(tmp_path / "data"))
    code, _, err = hephaestus("import", str(unnamed), *data)
    assert code == 2
    assert f"`hephaestus import {unnamed} FRAME --data-dir {tmp_path / 'data'}`" in err
    assert hephaestus("import", str(unnamed), FRAME.id, *data)[0] == 0
    code, _, err = hephaestus("import", str(tmp_path / "nowhere"), *data)
    assert (code, "no cube in Zarr format 2" in err) == (2, True)
    named = unnamed.rename(unnamed.with_name(f"{FRAME}.zarr"))
    code, _, err = hephaestus("import", str(named), "199D_02214_131313", *data)
    assert (code, "holds no cube of 199D_02214_131313, only of" in err) == (2, True)


def test_simulated_and_real_cubes_stay_apart(tmp_path, import_path):
    real = write_published_cube(toy_published(frame="124D_04854_171313"), tmp_path / "real")
    code, _, err = import_path(real, "--simulated")
    assert (code, "does not say that its data is simulated" in err) == (1, True)
    dataset = xr.open_zarr(real, chunks=None, mask_and_scale=False).load().assign_attrs(simulated=True)
    code, _, err = import_path(rewritten(dataset, real))
    assert (code, "add --simulated" in err) == (1, True)
    assert import_path(real, "--simulated")[0] == 0
    cube = open_pinned_cube(tmp_path / "data/simulated/cubes/124D_04854_171313.zarr")
    assert cube.attrs["simulated"] == 1


def exported_whole(whole_cube: Path, folder: Path) -> Path:
    return export_zarr_v2(open_export_selection(whole_cube / "simulated/cubes" / f"{FRAME}.zarr"), folder)


def test_an_archive_that_is_preferred_serves_what_it_has_and_the_published_cube_the_rest(
    whole_cube, upstream, import_path, tmp_path
):
    exported = exported_whole(whole_cube, tmp_path / "whole")
    pairs = stored_pairs(whole_cube)
    lost, broken = pairs[:2]
    upstream.archive.withdraw(FRAME, lost)
    upstream.faults.add(rf"{broken}\.geo\.cc\.tif$", faults.error_status(404))
    code, frame, err = import_path(exported, "--prefer", "archive")
    assert (code, frame["imported"], frame["result"]["pairs"]) == (0, 2, len(pairs)), err
    granules = granules_of(tmp_path / "data")
    for pair in pairs:
        granule = granules[GranuleKey.of_pair(pair)]
        assert {receipt.origin for receipt in granule.receipts} == (
            {"published"} if pair in (lost, broken) else {""}
        )
    assert not granules["dem/dem"].is_imported
    epochs = [granule for granule in granules.values() if granule.kind == "epoch"]
    assert not any(granule.is_imported for granule in epochs)


def test_importing_again_with_the_other_preference_exchanges_what_the_other_has(
    whole_cube, upstream, import_path, tmp_path
):
    exported = exported_whole(whole_cube, tmp_path / "whole")
    data = tmp_path / "data"
    upstream.archive.withdraw(FRAME, stored_pairs(whole_cube)[0])
    wanted = {"published": len(stored_pairs(whole_cube)), "archive": 1}
    for generation, prefer in enumerate(("published", "archive", "published"), 1):
        code, frame, err = import_path(exported, "--prefer", prefer)
        assert (code, frame["imported"], frame["result"]["generation"]) == (0, wanted[prefer], generation), (
            err
        )
        kinds = {granule.kind for granule in granules_of(data).values() if granule.is_imported}
        assert kinds == ({"dem", "pair", "mask", "epoch"} if prefer == "published" else {"pair"})
        upstream.clear_log()
        code, frame, _ = import_path(exported, "--prefer", prefer)
        assert (code, frame["result"]["published"]) == (0, False)
        assert asked(upstream) == set()


def test_an_import_that_prefers_the_published_cube_asks_no_archive(
    whole_cube, import_path, monkeypatch, tmp_path
):
    exported = exported_whole(whole_cube, tmp_path / "whole")
    monkeypatch.setenv("HEPHAESTUS_LICSAR_URL", "http://127.0.0.1:9/")
    code, frame, err = import_path(exported)
    assert (code, frame["imported"]) == (0, len(stored_pairs(whole_cube))), err
    code, _, err = import_path(exported, "--prefer", "archive")
    assert (code, "127.0.0.1:9" in err) == (1, True)


def test_a_folder_that_vanishes_is_named_and_no_mask_is_taken_for_empty(published, import_path, tmp_path):
    from hephaestus_build.cube.reading.store_objects import FolderObjects
    from hephaestus_build.cube.schema import MASK_VARIABLES
    from hephaestus_build.published.published_cube import PublishedCube

    cube = PublishedCube.open(FolderObjects(published), FRAME)
    published.rename(tmp_path / "elsewhere")
    receipts, masks = cube.masks(Pair.parse(SECOND))
    assert (masks, [receipt.ok for receipt in receipts]) == ({}, [False] * len(MASK_VARIABLES))
    assert "is gone while it is read" in receipts[0].detail


def test_where_the_annotations_say_otherwise_is_remarked(
    whole_cube, upstream, import_path, monkeypatch, tmp_path
):
    kept = tmp_path / "annotations.tar.gz"
    kept.write_bytes(upstream.archive.annotations())
    monkeypatch.setenv("HEPHAESTUS_ANNOTATIONS", str(kept))
    exported = exported_whole(whole_cube, tmp_path / "whole")
    granules = granules_of(whole_cube)
    keys = {pair.name: GranuleKey.of_mask(pair) for pair in stored_pairs(whole_cube)}
    pair = next(name for name, key in keys.items() if key in granules and granules[key].objects)
    [remark] = import_path(exported)[1]["remarks"]  # one annotated pair was never in the archive
    assert "it lacks 1 annotated pair, as " in remark
    changed(exported, "glacier_fringes", lambda flag: 1 - flag, pair)
    changed(exported, "intensity_level_mask", lambda mask: mask * 0 + 4 * (mask > 0), pair)
    code, frame, _ = import_path(exported, data=tmp_path / "changed")
    said = "\n".join(frame["remarks"])
    assert code == 0
    where = f"is not that of the annotations in 1 pair, as in {pair}"
    assert f"glacier_fringes {where}: 1 in the cube, 0 in the annotations" in said
    assert f"intensity_level_mask {where}: codes 4 in the cube" in said


def test_missing_values_of_a_phase_become_no_data(published, import_path, tmp_path):
    changed(published, "insar_difference", with_value(np.nan), FIRST)
    assert import_path(published)[0] == 0
    cube = open_pinned_cube(tmp_path / "data/simulated/cubes" / published.name)
    days = (np.datetime64(f"{day[:4]}-{day[4:6]}-{day[6:]}") for day in FIRST.split("_"))
    image = cube.insar_difference.sel(dict(zip(("primary_date", "secondary_date"), days, strict=True))).values
    assert (image[30:33, 30:33] == 0).all()
    assert np.isfinite(image).all()


def test_what_is_damaged_of_an_imported_cube_is_repaired_from_the_archive(
    whole_cube, upstream, import_path, hephaestus, tmp_path
):
    import_path(exported_whole(whole_cube, tmp_path / "whole"))
    current = frame_store_of(settings_for(tmp_path / "data")).published_generation()
    broken = [
        next(path for path in current.read_manifest() if path.startswith(f"{name}/c."))
        for name in ("insar_difference", "primary_date_surface_pressure", "deformation_mask")
    ]
    for path in broken:
        (current.store / path).unlink()  # a hard link
        (current.store / path).write_bytes(b"torn")
    code, out, err = hephaestus(
        "repair", FRAME.id, "--data-dir", str(tmp_path / "data"), "--simulated", "--json"
    )
    assert code == 0, err
    assert {damage["unit"].partition("/")[0] for damage in json.loads(out)["frames"][0]["damages"]} >= {
        "pair",
        "epoch",
        "mask",
    }
    code, out, err = hephaestus("verify", "--data-dir", str(tmp_path / "data"), "--simulated")
    assert code == 0, out + err
