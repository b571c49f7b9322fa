"""Tests of untrusted netCDF: no access outside the file, limits on memory, and no crash of the caller."""

from __future__ import annotations

import io
import os
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cds_answers import NAMES, answer, old_answer
from era5_servers import AREA, JUNE, truth
from fuzzing import Reader as FuzzedReader
from fuzzing import fuzz
from hephaestus_build.simulation.server.era5_netcdf import write_cds_netcdf
from hephaestus_build.sources.era5.cds_netcdf import InvalidCdsFileError, read_cds_netcdf
from hephaestus_build.sources.era5.netcdf_process import NetcdfProcess
from hephaestus_build.sources.era5.netcdf_reader import (
    MAX_NETCDF_BYTES,
    NetcdfError,
    NetcdfVariable,
    read_netcdf_files,
)

SECRET = b"password:hunter2-of-a-local-file"


@pytest.fixture(scope="module")
def reader() -> Iterator[NetcdfProcess]:
    with NetcdfProcess() as running:
        yield running


@pytest.fixture(scope="module")
def good() -> bytes:
    return write_cds_netcdf(JUNE, AREA.latitudes, AREA.longitudes, truth(JUNE), ["0001"] * 2, NAMES)


def amended(good: bytes, change: Callable[[h5py.File], object]) -> bytes:
    with h5py.File(io.BytesIO(good), "r+") as file:
        change(file)
        file.flush()
        return bytes(file.id.get_file_image())


def replaced(file: h5py.File, **how: object) -> None:
    """Replace the array of water vapour."""
    old = file["tcwv"]
    scales, attributes = [dimension[0] for dimension in old.dims], dict(old.attrs)
    shape = old.shape
    del file["tcwv"], attributes["DIMENSION_LIST"]
    new = file.create_dataset("tcwv", **{"shape": shape, "dtype": "f4", **how})
    new.attrs.update(attributes)
    for axis, scale in enumerate(scales):
        new.dims[axis].attach_scale(scale)


def external(file: h5py.File, place: Path) -> None:
    replaced(file, dtype="u1", external=[(str(place), 0, 70)])


def virtual(file: h5py.File, place: Path) -> None:
    layout = h5py.VirtualLayout((2, 5, 7), "f4")
    layout[:] = h5py.VirtualSource(str(place), "x", shape=(2, 5, 7))
    del file["tcwv"]
    file.create_virtual_dataset("tcwv", layout)


def linked(file: h5py.File, place: Path) -> None:
    del file["tcwv"]
    file["tcwv"] = h5py.ExternalLink(str(place), "x")


def nested(file: h5py.File, place: Path) -> None:
    file.create_group("inner")["x"] = h5py.ExternalLink(str(place), "x")


def softly(file: h5py.File, place: Path) -> None:
    file["again"] = h5py.SoftLink("/tcwv")


def hidden(file: h5py.File, place: Path) -> None:
    """Use an unnamed array, reachable by a reference only, as an axis."""
    scale = file.create_group("inner").create_dataset("x", (7,), "u1", external=[(str(place), 0, 7)])
    scale.make_scale("longitude")
    file["tcwv"].dims[2].detach_scale(file["longitude"])
    file["tcwv"].dims[2].attach_scale(scale)


@pytest.mark.parametrize("change", [external, virtual, linked, nested, softly, hidden])
@pytest.mark.parametrize("pipe", [False, True])
def test_no_other_file_is_read(
    tmp_path: Path, good: bytes, reader: NetcdfProcess, change: Callable[..., None], pipe: bool
) -> None:
    place = tmp_path / "secret"
    if pipe:
        os.mkfifo(place)  # opening it would block forever
    elif change in (virtual, linked):
        with h5py.File(place, "w") as file:
            file["x"] = truth(JUNE)[:, 0]
    else:
        place.write_bytes(SECRET * 10)
    path = tmp_path / "a.nc"
    path.write_bytes(amended(good, lambda file: change(file, place)))
    with pytest.raises(InvalidCdsFileError, match=r"other files|is a link|is not an array"):
        read_cds_netcdf(path, AREA, JUNE, reader)


def test_an_answer_that_names_a_file_could_not_open_it(tmp_path: Path, good: bytes) -> None:
    (tmp_path / "secret").write_bytes(SECRET * 10)
    code = (
        "import sys; sys.modules['__main__'].__name__ = 'x'\n"
        "from hephaestus_build.sources.era5 import netcdf_reader as netcdf\n"
        "netcdf._warm_up()\n"
        "with netcdf._forbid_open_files():\n"
        "    try: open(sys.argv[1])\n"
        "    except OSError as error: print(error.errno)\n"
    )
    import subprocess
    import sys

    found = subprocess.run([sys.executable, "-c", code, str(tmp_path / "secret")], capture_output=True)
    assert found.stdout.strip() == b"24"  # too many open files


def bomb(file: h5py.File) -> None:
    """Write one chunk that declares 280 bytes and unpacks to 128 MB."""
    replaced(file, chunks=(2, 5, 7), compression=1)
    packer = zlib.compressobj(9)
    raw = b"".join([packer.compress(bytes(1 << 20)) for _ in range(128)]) + packer.flush()
    file["tcwv"].id.write_direct_chunk((0, 0, 0), raw)


def many_texts(file: h5py.File) -> None:
    del file["expver"]
    file.create_dataset("expver", (1 << 20,), h5py.string_dtype())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (bomb, "unpacks to more than it should"),
        (lambda f: replaced(f, shape=(1 << 15, 1 << 15, 2), chunks=(1, 1 << 10, 2), compression=1), "larger"),
        (lambda f: f.create_dataset("x", (4, 1 << 23), "f8"), "x is larger than 64 MB"),
        (lambda f: f.create_dataset("x", (1 << 40,), "f8", chunks=(1 << 20,)), "x is larger than 64 MB"),
        (lambda f: f.create_dataset("x", (8,), "f8", chunks=(1 << 26,), maxshape=(None,)), "in chunks of"),
        (lambda f: f.create_dataset("x", (1 << 20,), "u1", chunks=(1,), maxshape=(None,)), "in chunks of"),
        (lambda f: [f.create_dataset(f"x{i}", (1 << 20,), "f8") for i in range(9)], "larger than 64 MB"),
        (lambda f: [f.create_group(str(i)) for i in range(1000)], "it holds 1008 objects"),
        (lambda f: f.create_dataset("x", (9,) * 9, "u1"), "larger"),
        (many_texts, "holds more than 4096 strings"),
        (lambda f: replaced(f, chunks=(2, 5, 7), compression="lzf"), "packed by a method"),
        (lambda f: replaced(f, chunks=(2, 5, 7), scaleoffset=3), "packed by a method"),
        (lambda f: f["tcwv"].attrs.create("units", "m" * 60_000), "a text is too long|cannot be read"),
        (lambda f: f["tcwv"].attrs.create("_FillValue", np.zeros(8000)), "_FillValue is too long"),
    ],
)
def test_what_is_beyond_the_bounds_is_refused_before_memory_is_taken(
    good: bytes, reader: NetcdfProcess, change: Callable[[h5py.File], object], message: str
) -> None:
    with pytest.raises(NetcdfError, match=message):
        reader.read(amended(good, change))


def test_a_hundred_thousand_groups_end_soon(tmp_path: Path, reader: NetcdfProcess) -> None:
    with h5py.File(tmp_path / "a.nc", "w", libver="latest") as file:
        for number in range(100_000):
            file.id.links.create_soft(str(number).encode(), b"/") if number % 100 else file.create_group(
                str(number)
            )
    begun = time.monotonic()
    with pytest.raises(NetcdfError, match="it holds 100000 objects"):
        reader.read((tmp_path / "a.nc").read_bytes())
    assert time.monotonic() - begun < 30


def test_one_long_text_cannot_stand_for_many(good: bytes, reader: NetcdfProcess) -> None:
    def repeat(file: h5py.File) -> None:
        del file["expver"]
        file.create_dataset("expver", data=["0" * 2_000_000], dtype=h5py.string_dtype())

    with pytest.raises(NetcdfError, match="a text is too long"):
        reader.read(amended(good, repeat))


def test_real_answers_may_use_the_filters_of_the_cds(
    tmp_path: Path, good: bytes, reader: NetcdfProcess
) -> None:
    how = {"chunks": (1, 5, 7), "compression": 4, "shuffle": True, "fletcher32": True}
    changed = amended(good, lambda file: replaced(file, data=truth(JUNE)[:, 0], **how))
    (tmp_path / "a.nc").write_bytes(changed)
    found = read_cds_netcdf(tmp_path / "a.nc", AREA, JUNE, reader)
    np.testing.assert_array_equal(np.stack([found.values[hour] for hour in JUNE]), truth(JUNE))


def test_a_reader_that_fails_or_takes_too_long_is_replaced(good: bytes, monkeypatch) -> None:
    with NetcdfProcess() as reader:
        assert reader.read(good)
        process = reader._process
        assert process is not None
        process.kill()
        process.wait()
        with pytest.raises(NetcdfError, match="the library fails on it"):
            reader.read(good)
        assert reader.read(good)
        process = reader._process
        assert process is not None
        import signal

        process.send_signal(signal.SIGSTOP)  # as one that reads without end
        reader._seconds = 0.5
        with pytest.raises(NetcdfError, match=r"cannot be read in 0.5 s"):
            reader.read(good)
        reader._seconds = 20.0
        assert reader.read(good)
    assert reader._process is None


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def encrypted(content: bytes) -> bytes:
    """Return a zip whose first member is marked as encrypted."""
    flags = bytearray(zipped({"a.nc": content}))
    flags[6] |= 1
    directory = flags.index(b"PK\x01\x02")
    flags[directory + 8] |= 1
    return bytes(flags)


def lying(content: bytes) -> bytes:
    """Return a zip that declares 10 bytes for its member of 70 MB."""
    data = bytearray(zipped({"a.nc": bytes(70 << 20)}))
    directory = data.index(b"PK\x01\x02")
    for place in (22, directory + 24):
        struct.pack_into("<I", data, place, 10)
    return bytes(data)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda good: zipped({"a.nc": bytes(1 << 20)}, zipfile.ZIP_BZIP2), "another method than deflate"),
        (lambda good: zipped({"a.nc": bytes(1 << 20)}, zipfile.ZIP_LZMA), "another method than deflate"),
        (lambda good: zipped({"a.nc": bytes(70 << 20)}), "more than 64 MB"),
        (lambda good: zipped({f"{i}.nc": good + bytes(30 << 20) for i in range(3)}), "more than 64 MB"),
        (lambda good: zipped({f"{i}.nc": good for i in range(100)}), "more than 32 files"),
        (lambda good: zipped({"a.txt": good}), "a zip without netCDF files"),
        (lambda good: zipped({"a.nc": zipped({"b.nc": good})}), r"not netCDF: it starts with ['\"]PK"),
        (encrypted, "a zip that cannot be read: .*encrypted"),
        (lying, "a zip that cannot be read|cannot be read|starts with"),
        (lambda good: bytes(MAX_NETCDF_BYTES + 1), "larger than 64 MB"),
    ],
)
def test_a_zip_is_read_within_bounds(
    good: bytes, reader: NetcdfProcess, make: Callable[[bytes], bytes], message: str
) -> None:
    with pytest.raises(NetcdfError, match=message):
        reader.read(make(good))


def test_names_in_a_zip_are_only_names(good: bytes, reader: NetcdfProcess) -> None:
    [file] = reader.read(zipped({"/../../etc/x.nc": good}))
    assert {"tcwv", "sp", "vit"} <= set(file.variables)


def test_packed_numbers_are_unpacked_and_missing_ones_are_missing() -> None:
    def values(numbers: list[int], **attributes: object) -> list[float]:
        content = np.array(numbers, "<i2").tobytes()
        return NetcdfVariable(("x",), attributes, (len(numbers),), "<i2", content).values().tolist()  # type: ignore[arg-type]

    nan = np.nan
    np.testing.assert_equal(values([1, 2], scale_factor=0.5, add_offset=10), [10.5, 11.0])
    np.testing.assert_equal(values([1, 2, 3], _FillValue=1, missing_value=[2, 9]), [nan, nan, 3.0])
    np.testing.assert_equal(values([1, 2, 3], valid_min=2, valid_max=2), [nan, 2.0, nan])
    np.testing.assert_equal(values([1, 2, 3], valid_range=[2, 3]), [nan, 2.0, 3.0])
    np.testing.assert_equal(values([1], scale_factor="x", _FillValue="1"), [1.0])
    np.testing.assert_equal(values([3], scale_factor=1e308, add_offset=-1e308), [np.inf])
    signalling = NetcdfVariable(("x",), {}, (1,), "<f4", b"\x01\x00\x80\x7f")
    np.testing.assert_equal(signalling.values(), [nan])  # and no warning of it


# --- one hour, several times -------------------------------------------------------------------------------


def several(tmp_path: Path, *parts: dict[str, object]) -> Path:
    members = {}
    for number, part in enumerate(parts):
        members[f"{number}.nc"] = answer(tmp_path / f"{number}.nc", **part).read_bytes()
    (tmp_path / "zip.nc").write_bytes(zipped(members))
    return tmp_path / "zip.nc"


def holes(*hours: int) -> np.ndarray:
    values = truth(JUNE)
    values[list(hours)] = np.nan
    return values


@pytest.mark.parametrize("turned", [False, True])
def test_a_good_hour_counts_before_a_missing_one(tmp_path: Path, reader: NetcdfProcess, turned: bool) -> None:
    parts = [{"values": holes(0)}, {"values": holes(1)}]
    found = read_cds_netcdf(several(tmp_path, *parts[:: -1 if turned else 1]), AREA, JUNE, reader)
    np.testing.assert_array_equal(np.stack([found.values[hour] for hour in JUNE]), truth(JUNE))
    assert not found.rejected_hours


@pytest.mark.parametrize("turned", [False, True])
def test_a_final_hour_counts_before_a_preliminary_one(
    tmp_path: Path, reader: NetcdfProcess, turned: bool
) -> None:
    parts = [
        {"versions": ["0001"] * 2, "values": holes(1)},
        {"versions": ["0005"] * 2, "values": truth(JUNE) * 0.99},
    ]
    found = read_cds_netcdf(several(tmp_path, *parts[:: -1 if turned else 1]), AREA, JUNE, reader)
    assert [found.expver[hour] for hour in JUNE] == ["0001", "0005"]
    np.testing.assert_array_equal(found.values[JUNE[0]], truth(JUNE)[0])
    np.testing.assert_array_equal(found.values[JUNE[1]], (truth(JUNE) * 0.99)[1])


def test_the_first_of_two_equal_copies_counts_and_the_receipt_says_so(
    tmp_path: Path, reader: NetcdfProcess
) -> None:
    path = several(tmp_path, {}, {"values": truth(JUNE) * np.float32(1.001)})
    found = read_cds_netcdf(path, AREA, JUNE, reader)
    np.testing.assert_array_equal(found.values[JUNE[0]], truth(JUNE)[0])
    assert f"surface_pressure at {JUNE[0]} occurs twice and differs: the first is used" in found.notes


@pytest.mark.parametrize("turned", [False, True])
def test_versions_are_not_mixed_over_variables(tmp_path: Path, reader: NetcdfProcess, turned: bool) -> None:
    """Final water vapour alone does not make an hour final whose other variables are preliminary."""
    parts = [
        {"versions": ["0001"] * 2, "names": {"tcwv": 0}, "values": truth(JUNE) * np.float32(1.01)},
        {"versions": ["0005"] * 2},
    ]
    found = read_cds_netcdf(several(tmp_path, *parts[:: -1 if turned else 1]), AREA, JUNE, reader)
    assert set(found.expver.values()) == {"0005"}
    np.testing.assert_array_equal(found.values[JUNE[0]], truth(JUNE)[0])


def test_an_hour_that_no_version_holds_whole_is_owed(tmp_path: Path, reader: NetcdfProcess) -> None:
    parts = [
        {"versions": ["0001", "0001"], "names": {"tcwv": 0}},
        {"versions": ["0001", "0005"], "names": {"sp": 1, "vit": 2}},
    ]
    found = read_cds_netcdf(several(tmp_path, *parts), AREA, JUNE, reader)
    assert sorted(found.values) == JUNE[:1]
    assert found.rejected_hours == {JUNE[1]: "its variables are of different versions: 0001, 0005"}


# --- anything ---------------------------------------------------------------------------------------------


def read(path: Path) -> None:
    """Read a file as a build does, each in a separate process, so that they cannot affect each other."""
    read_cds_netcdf(path, AREA, JUNE, _fuzzed)


_fuzzed = NetcdfProcess(3)  # one in ten thousand makes the library loop for ever


def select(path: Path) -> None:
    """Read a file in this process, where its memory and time are measured."""
    from hephaestus_build.sources.era5.cds_netcdf import select_hours

    select_hours(read_netcdf_files(path.read_bytes()), AREA, JUNE)


def samples(tmp_path: Path) -> list[bytes]:
    good = answer(tmp_path / "good.nc").read_bytes()
    old = old_answer(tmp_path / "old.nc", split=True).read_bytes()
    return [good, good, old, zipped({"a.nc": good, "b.nc": old}, zipfile.ZIP_STORED)]


def test_mutated_answers_end_as_a_reason(tmp_path: Path) -> None:
    with FuzzedReader(f"{__file__}:read") as fuzzed:
        counts = fuzz(fuzzed, samples(tmp_path), tmp_path)
    assert counts["read"]
    assert counts["refused"]


def test_mutated_classic_files_take_little_memory(tmp_path: Path) -> None:
    """These are read by pure Python, which cannot crash the process."""
    old = [old_answer(tmp_path / "old.nc", split=split).read_bytes() for split in (False, True)]
    with FuzzedReader(f"{__file__}:select", memory=300 << 20) as fuzzed:
        counts = fuzz(fuzzed, old, tmp_path)
    assert counts["read"]
    assert counts["refused"]


numbers = st.floats(width=32) | st.integers(-(1 << 60), 1 << 60)
attributes = st.dictionaries(
    st.sampled_from(
        ["units", "calendar", "long_name", "GRIB_paramId", "_FillValue", "scale_factor", "add_offset"]
    ),
    st.text(max_size=30)
    | numbers
    | st.lists(numbers, max_size=3).map(lambda some: [float(n) for n in some])
    | st.sampled_from(
        ["Pa", "hours since 1900-01-01", "seconds since 1-1-1", "gregorian", "Surface pressure"]
    ),
)


@st.composite
def variables(draw: st.DrawFn) -> NetcdfVariable:
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=4)))
    names = st.sampled_from(["latitude", "longitude", "valid_time", "time", "expver", "number", ""])
    dimensions = tuple(draw(st.lists(names, min_size=len(shape), max_size=len(shape))))
    count = int(np.prod(shape))
    if draw(st.booleans()):
        content = np.array(draw(st.lists(st.floats(), min_size=count, max_size=count)), "<f8").tobytes()
        return NetcdfVariable(dimensions, draw(attributes), shape, "<f8", content)
    texts = tuple(draw(st.lists(st.text(max_size=5), min_size=count, max_size=count)))
    return NetcdfVariable(dimensions, draw(attributes), shape, texts=texts)


@settings(max_examples=100)
@given(
    st.dictionaries(
        st.sampled_from(
            ["tcwv", "sp", "vit", "latitude", "longitude", "valid_time", "time", "expver", "number"]
        ),
        variables(),
        max_size=9,
    )
)
def test_no_file_breaks_the_selection(found: dict[str, NetcdfVariable]) -> None:
    from hephaestus_build.sources.era5.cds_netcdf import select_hours
    from hephaestus_build.sources.era5.netcdf_reader import NetcdfFile

    with pytest.raises(InvalidCdsFileError):
        select_hours([NetcdfFile({}, found)], AREA, [datetime(2018, 6, 1, 12)])
