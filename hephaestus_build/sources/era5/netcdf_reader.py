"""Reader of untrusted netCDF files, which checks how every array is stored before reading any.

This file is also the program of the child process in ``netcdf_process.py``. It imports nothing of this
package, so that the process starts quickly.
"""

from __future__ import annotations

import io
import math
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

import msgspec
import numpy as np
import numpy.typing as npt

#: Bytes of a file, and of all its unpacked arrays together; a month of one frame's area has 200 kB.
MAX_NETCDF_BYTES = 64 << 20
_MAX_MEMORY = 2 << 30  # address space of the child, libraries included
_MAX_MEMBERS = 32  # files in a zip
_MAX_VARIABLES = 64  # in one file; the CDS writes eight
_MAX_RANK = 8
_MAX_CHUNKS = 4096  # of one array
_MAX_STRINGS = 4096  # elements of an array of strings
_MAX_STRING_LENGTH = 4096  # characters of a string, numbers in an attribute
_DEFLATE, _SHUFFLE, _FLETCHER32 = 1, 2, 3
#: Attributes that define the meaning of the values; no others are read.
_READ_ATTRIBUTES = (
    *("units", "calendar", "long_name", "GRIB_paramId", "simulated"),
    *("_FillValue", "missing_value", "scale_factor", "add_offset", "valid_min", "valid_max", "valid_range"),
)

AttributeValue = str | int | float | list[float]


class NetcdfError(ValueError):
    """The content is not netCDF or cannot be read; the message says why."""


class NetcdfVariable(msgspec.Struct, frozen=True):
    """One variable as stored, before unpacking.

    Attributes
    ----------
    dimensions : tuple of str
        Name of each axis; empty where the file has none.
    attributes : dict
        The attributes in `_READ_ATTRIBUTES`.
    shape : tuple of int
        Length of each axis.
    dtype : str
        Type of the numbers in `content`, little-endian; empty for strings.
    content : bytes
        Numbers in C order.
    texts : tuple of str
        Strings in C order.
    """

    dimensions: tuple[str, ...]
    attributes: dict[str, AttributeValue]
    shape: tuple[int, ...]
    dtype: str = ""
    content: bytes = b""
    texts: tuple[str, ...] = ()

    def values(self) -> npt.NDArray[np.float64]:
        """Return the unpacked numbers as float64, NaN where missing; strings as an object array."""
        if not self.dtype:
            return np.array(self.texts, dtype=object).reshape(self.shape)
        with np.errstate(all="ignore"):  # overflows are rejected as implausible later
            return self._unpacked(np.frombuffer(self.content, self.dtype).reshape(self.shape))

    def _unpacked(self, stored: np.ndarray) -> np.ndarray:
        values = stored.astype(np.float64)
        for mark in (*self._numbers("_FillValue"), *self._numbers("missing_value")):
            values[stored == mark] = np.nan
        least, most, *_ = *self._numbers("valid_range"), math.nan, math.nan
        for low in (least, *self._numbers("valid_min")):
            values[stored < low] = np.nan
        for high in (most, *self._numbers("valid_max")):
            values[stored > high] = np.nan
        scale, offset = self._numbers("scale_factor") or [1.0], self._numbers("add_offset") or [0.0]
        return values * scale[0] + offset[0]

    def _numbers(self, name: str) -> list[float]:
        value = self.attributes.get(name, [])
        found = value if isinstance(value, list) else [value]
        return [float(number) for number in found if isinstance(number, int | float)]


class NetcdfFile(msgspec.Struct, frozen=True):
    """Attributes and variables of one netCDF file."""

    attributes: dict[str, AttributeValue]
    variables: dict[str, NetcdfVariable]


def read_netcdf_files(content: bytes) -> list[NetcdfFile]:
    """Read a netCDF file, or a zip of several, in this process.

    Raises
    ------
    NetcdfError
        If the content cannot be read or exceeds a limit.
    """
    if not content.startswith(b"PK\x03\x04"):
        return [_read_file(content, MAX_NETCDF_BYTES)]
    files: list[NetcdfFile] = []
    left = MAX_NETCDF_BYTES
    for member in _members(content):
        files.append(_read_file(member, left))
        left -= sum(len(variable.content) for variable in files[-1].variables.values())
    return files


def _members(content: bytes) -> Iterator[bytes]:
    """Yield the netCDF files of a zip; NetcdfError at the first that exceeds a limit."""
    left = MAX_NETCDF_BYTES
    # count the entries before zipfile reads them: each takes a hundred times its size in memory
    if content.count(b"PK\x01\x02") > _MAX_MEMBERS + 8:
        raise NetcdfError(f"it is a zip of more than {_MAX_MEMBERS} files")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename.endswith(".nc")]
            if not entries:
                raise NetcdfError("it is a zip without netCDF files")
            for entry in entries:
                if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise NetcdfError("it is a zip packed by another method than deflate")
                with archive.open(entry) as stream:
                    member = stream.read(left + 1)  # the sizes in the zip's directory may be wrong
                if len(member) > left:
                    raise NetcdfError(f"it is a zip of more than {MAX_NETCDF_BYTES >> 20} MB")
                left -= len(member)
                yield member
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise NetcdfError(f"it is a zip that cannot be read: {str(error)[:200]}") from None


def _read_file(content: bytes, limit: int) -> NetcdfFile:
    if content.startswith(b"\x89HDF"):
        reader = _read_hdf5
    elif content.startswith((b"CDF\x01", b"CDF\x02")):
        reader = _read_classic
    else:
        start = content[:24].decode("ascii", "replace").split("\n")[0]
        raise NetcdfError(f"it is not netCDF: it starts with {start!r}" if content else "it is empty")
    try:
        return reader(content, limit)
    except NetcdfError:
        raise
    except Exception as error:  # the libraries raise many exception types on damaged files
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise NetcdfError(f"it is netCDF that cannot be read: {reason}") from None


def _read_hdf5(content: bytes, limit: int) -> NetcdfFile:
    """Read netCDF-4.

    1. Open the content as an in-memory image.
    2. Refuse links, groups and named types.
    3. Check the storage of every array (`_check_storage`), then its size (`_check_size`).
    4. Only then read data.
    """
    import h5py

    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fapl_core(backing_store=False)
    access.set_file_image(content)
    with h5py.File(h5py.h5f.open(b"answer.nc", h5py.h5f.ACC_RDONLY, access)) as file:
        links = file.id.links
        if (count := file.id.get_num_objs()) > _MAX_VARIABLES:
            raise NetcdfError(f"it holds {count} objects")
        found: dict[str, Any] = {}
        for name in list(file):
            raw = name.encode("utf-8", "surrogateescape")
            if links.get_info(raw).type != h5py.h5l.TYPE_HARD:
                raise NetcdfError(f"{name} is a link to something else")
            if h5py.h5o.get_info(file.id, raw).type != h5py.h5o.TYPE_DATASET:
                raise NetcdfError(f"{name} is not an array, but a group or a type")
            found[name] = h5py.h5d.open(file.id, raw)
        for name, identifier in found.items():
            _check_storage(name, identifier)
        for name, identifier in found.items():
            limit -= _check_size(name, identifier, limit)
        variables = {}
        for name, identifier in found.items():
            array = h5py.Dataset(identifier)
            label = _attribute(array, "NAME")
            if str(label).startswith("This is a netCDF dimension but not a netCDF variable"):
                continue
            dimensions = tuple(_dimension(array, axis, found) for axis in range(array.ndim))
            attributes = _attributes(array)
            variable = name.removeprefix("_nc4_non_coord_")
            if h5py.check_string_dtype(array.dtype) is not None:
                texts = tuple(_read_strings(array))
                variables[variable] = NetcdfVariable(dimensions, attributes, array.shape, texts=texts)
            elif array.dtype.kind in "iuf" and array.dtype.itemsize <= 8:
                dtype = array.dtype.newbyteorder("<")
                numbers = np.asarray(array[()], dtype=dtype).tobytes()
                variables[variable] = NetcdfVariable(dimensions, attributes, array.shape, dtype.str, numbers)
        return NetcdfFile(_attributes(file), variables)


def _check_storage(name: str, identifier: Any) -> None:
    """Refuse an array that is stored in other files or compressed with anything but plain deflate."""
    import h5py

    how = identifier.get_create_plist()
    layouts = (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED)
    # must run before the shape is read: for a virtual array the library opens its source files for that
    if how.get_layout() not in layouts or how.get_external_count():
        raise NetcdfError(f"{name} is stored in other files than the answer")
    filters = [how.get_filter(position)[0] for position in range(how.get_nfilters())]
    if len(set(filters)) < len(filters) or not {_DEFLATE, _SHUFFLE, _FLETCHER32}.issuperset(filters):
        raise NetcdfError(f"{name} is packed by a method that the CDS does not use")


def _check_size(name: str, identifier: Any, limit: int) -> int:
    """Return the unpacked bytes of an array; refuse more than `limit`, and chunks larger than they claim."""
    import h5py

    how, dtype = identifier.get_create_plist(), identifier.dtype
    shape = identifier.shape or ()
    size = math.prod(shape) * dtype.itemsize
    if len(shape) > _MAX_RANK or size > limit:
        raise NetcdfError(f"{name} is larger than {MAX_NETCDF_BYTES >> 20} MB once it is unpacked")
    if h5py.check_string_dtype(dtype) is not None and math.prod(shape) > _MAX_STRINGS:
        raise NetcdfError(f"{name} holds more than {_MAX_STRINGS} strings")
    if how.get_layout() == h5py.h5d.CHUNKED:
        chunk = how.get_chunk()
        unpacked = math.prod(chunk) * dtype.itemsize
        grid = math.prod(-(-size // step) for size, step in zip(shape, chunk, strict=True))
        if unpacked > MAX_NETCDF_BYTES or max(grid, identifier.get_num_chunks()) > _MAX_CHUNKS:
            raise NetcdfError(f"{name} is in chunks of a size that cannot be")
        packed = _DEFLATE in [how.get_filter(position)[0] for position in range(how.get_nfilters())]
        for position in range(identifier.get_num_chunks() if packed else 0):
            place = identifier.get_chunk_info(position)
            mask, raw = identifier.read_direct_chunk(place.chunk_offset)
            # the library inflates a chunk without a limit and compares the size only afterwards
            if mask or len(zlib.decompressobj().decompress(raw, unpacked + 5)) > unpacked + 4:
                raise NetcdfError(f"a chunk of {name} unpacks to more than it should")
    return size


def _dimension(array: Any, axis: int, known: dict[str, Any]) -> str:
    """Return the name of the dimension along `axis`; empty if it has none."""
    if array.is_scale:
        name = array.name if array.ndim == 1 else ""
    else:
        scales = array.dims[axis]
        name = scales[0].name if len(scales) else ""
    name = (name or "").removeprefix("/")
    return name.removeprefix("_nc4_non_coord_") if name in known else ""


def _read_strings(array: Any) -> Iterator[str]:
    """Yield the strings of an array one by one: many elements may refer to one long string."""
    for position in np.ndindex(array.shape):
        value = array[position]
        yield _decode_string(value)


def _attributes(holder: Any) -> dict[str, AttributeValue]:
    found = {name: _attribute(holder, name) for name in _READ_ATTRIBUTES}
    return {name: value for name, value in found.items() if value is not None}


def _attribute(holder: Any, name: str) -> AttributeValue | None:
    """Return an attribute that is a short text or a few numbers; None if it is neither or missing."""
    import h5py

    if not h5py.h5a.exists(holder.id, name.encode()):
        return None
    identifier = h5py.h5a.open(holder.id, name.encode())
    text = h5py.check_string_dtype(identifier.dtype) is not None
    if not text and identifier.dtype.kind not in "iuf":
        return None
    count = math.prod((0,) if identifier.shape is None else identifier.shape)
    if count * identifier.dtype.itemsize > 8 * _MAX_STRING_LENGTH:
        raise NetcdfError(f"its attribute {name} is too long")
    if not count or (text and count > 1):
        return None
    return _plain_attribute(holder.attrs[name])


def _read_classic(content: bytes, limit: int) -> NetcdfFile:
    """Read netCDF-3. It has no compression, so the arrays cannot exceed the file's size by much."""
    from scipy.io import netcdf_file

    with netcdf_file(io.BytesIO(content), "r", mmap=False, maskandscale=False) as file:
        if len(file.variables) > _MAX_VARIABLES:
            raise NetcdfError(f"it holds {len(file.variables)} variables")
        variables = {}
        for name, array in file.variables.items():
            attributes = _classic_attributes(array)
            dimensions = tuple(array.dimensions)
            if array.data.dtype.kind in "iuf":
                dtype = array.data.dtype.newbyteorder("<")
                numbers = np.asarray(array.data, dtype=dtype)
                limit -= numbers.nbytes
                if numbers.ndim != len(dimensions) or numbers.ndim > _MAX_RANK or limit < 0:
                    raise NetcdfError(f"{name} contradicts its header")
                content = numbers.tobytes()
                variables[name] = NetcdfVariable(dimensions, attributes, numbers.shape, dtype.str, content)
        return NetcdfFile(_classic_attributes(file), variables)


def _classic_attributes(holder: Any) -> dict[str, AttributeValue]:
    found = holder._attributes
    return {name: _plain_attribute(found[name]) for name in _READ_ATTRIBUTES if name in found}


def _plain_attribute(value: Any) -> AttributeValue:
    """Convert an attribute value of h5py or scipy to a text, a number or a list of numbers."""
    if isinstance(value, str | bytes):
        return _decode_string(value)
    array = np.asarray(value)
    if array.size > _MAX_STRING_LENGTH:
        raise NetcdfError("an attribute is too long")
    if array.dtype.kind in "SO" and array.size == 1:
        return _decode_string(array.item())
    if array.dtype.kind not in "iuf":
        return ""
    return array.item() if array.size == 1 else [float(number) for number in array.ravel()]


def _decode_string(value: Any) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    if len(text) > _MAX_STRING_LENGTH:
        raise NetcdfError("a text is too long")
    return text.encode("utf-8", "replace").decode()


def send_message(stream: IO[bytes], content: bytes) -> None:
    """Send `content` to the other process, preceded by its length."""
    stream.write(len(content).to_bytes(8, "big"))
    stream.write(content)
    stream.flush()


def receive_message(stream: IO[bytes], limit: int) -> bytes:
    """Return the next message of the other process; EOFError if it has ended."""
    size = int.from_bytes(_read_exactly(stream, 8), "big")
    if size > limit:
        raise ValueError(f"a message of {size} bytes exceeds the limit")
    return _read_exactly(stream, size)


def _read_exactly(stream: IO[bytes], size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise EOFError
    return content


@contextmanager
def _forbid_open_files() -> Iterator[None]:
    """Forbid opening files in the body: neither files that the netCDF refers to nor HDF5 plugins."""
    try:
        import resource
    except ImportError:  # Unix only
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def _warm_up() -> None:
    """Read a small file, so that modules which are imported lazily are loaded while files can be opened."""
    import encodings.ascii
    import encodings.cp437  # noqa: F401 (names in a zip)

    import h5py

    with h5py.File("small.nc", "w", driver="core", backing_store=False) as file:
        axis = file.create_dataset("time", data=np.arange(3.0))
        axis.attrs["units"] = "hours since 1900-01-01"
        axis.make_scale("time")
        file.create_dataset("expver", data=["0001"] * 3, dtype=h5py.string_dtype())
        data = file.create_dataset("sp", data=np.zeros(3, "f4"), compression=1, shuffle=True, fletcher32=True)
        data.attrs["_FillValue"] = np.zeros(1, "f4")
        data.dims[0].attach_scale(axis)
        file.flush()
        read_netcdf_files(file.id.get_file_image())


def _main() -> None:
    """Read files from standard input and write results to standard output until the input ends."""
    _warm_up()
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY, _MAX_MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        send_message(sys.stdout.buffer, b"")  # ready
        while True:
            content = receive_message(sys.stdin.buffer, MAX_NETCDF_BYTES)
            if not content.startswith(b"\x89HDF"):
                from scipy.io import netcdf_file  # noqa: F401 (while files can still be opened)
            reply: list[NetcdfFile] | str
            with _forbid_open_files():
                try:
                    reply = read_netcdf_files(content)
                except NetcdfError as error:
                    reply = str(error)
                except MemoryError:
                    reply = "it is netCDF that cannot be read: it takes too much memory"
            send_message(sys.stdout.buffer, msgspec.msgpack.encode(reply))


if __name__ == "__main__":
    _main()
