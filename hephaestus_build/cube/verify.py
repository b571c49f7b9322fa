"""Whether a cube is still what was published, byte by byte."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hephaestus_build.cube.contents import Contents
from hephaestus_build.cube.files import sha256_of
from hephaestus_build.cube.generation import MANIFEST, PROVENANCE, Generation
from hephaestus_build.cube.units import Places, StoredObject

What = Literal["damaged", "missing", "unknown", "unreadable"]


@dataclass(frozen=True)
class Damage:
    """One stored object that is not what was published.

    Attributes
    ----------
    path : str
        In the store.
    what : str
        ``damaged`` (other bytes), ``missing``, ``unknown`` (nobody published it) or ``unreadable``.
    unit : str
        The unit whose object it is, such as ``pair/20160909_20160921``; empty for metadata and tables.
    variable : str
        The cube's variable; empty for files that belong to none.
    detail : str
        In words.
    """

    path: str
    what: What
    unit: str = ""
    variable: str = ""
    detail: str = ""

    def __str__(self) -> str:
        names = " of ".join(part for part in (self.variable, self.unit) if part) or "the cube's own record"
        return f"{names}: {self.path} is {self.what}" + (f" ({self.detail})" if self.detail else "")


@dataclass(frozen=True)
class Expected:
    """What should stand at one path of a store, and whose it is."""

    content: StoredObject
    unit: str = ""


def expected_objects(manifest: Mapping[str, Any], contents: Contents) -> dict[str, Expected]:
    """Return what should stand where, by path.

    The objects of units are taken from the provenance, which is the truth; metadata and tables, which
    follow from it, from the manifest.
    """
    expected = {path: Expected(StoredObject(*value)) for path, value in manifest["objects"].items()}
    places = Places(contents.axes)
    for unit in contents.units.values():
        for name, path in places.keys(unit):
            expected[path] = Expected(unit.objects[name], unit.key)
    return expected


def read_record(generation: Generation) -> tuple[dict[str, Any], Contents, list[Damage]]:
    """Return a generation's manifest and contents, from their second copies where the first are damaged.

    Raises
    ------
    HephaestusError
        If no copy of the provenance can be read.
    """
    damages: list[Damage] = []
    copies = [generation.store, generation.store.parent]
    manifests = [_load(folder / MANIFEST) for folder in copies]
    manifest = next((value for value in manifests if value is not None), None)
    if manifests[0] is None or manifests[0] != manifests[1]:
        # which of two differing copies is right: the one that agrees with a provenance file
        manifest = next(
            (value for value in manifests if value and _agrees(value, copies)), manifest or {"objects": {}}
        )
        if manifests[0] != manifest:
            damages.append(Damage(MANIFEST, "damaged" if (copies[0] / MANIFEST).exists() else "missing"))
    assert manifest is not None
    recorded = manifest["objects"].get(PROVENANCE, [None])[0]
    good = next((folder for folder in copies if _hash(folder / PROVENANCE) == recorded), None)
    if good is not None:
        contents = Contents.from_json(json.loads((good / PROVENANCE).read_bytes()))
    else:
        contents = generation.contents()
    return manifest, contents, damages


def _load(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_bytes())
        return value if all(len(item) == 2 for item in value["objects"].values()) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _hash(path: Path) -> str | None:
    try:
        return sha256_of(path)
    except OSError:
        return None


def _agrees(manifest: dict[str, Any], copies: Iterable[Path]) -> bool:
    recorded = manifest["objects"].get(PROVENANCE, [None])[0]
    return any(_hash(folder / PROVENANCE) == recorded for folder in copies)


def verify_content(generation: Generation, advance: Callable[[], None] = lambda: None) -> list[Damage]:
    """Read every stored object of a generation and compare it with what was published.

    Parameters
    ----------
    generation : Generation
        The cube.
    advance : callable
        Called once for every object.

    Returns
    -------
    list of Damage
        Empty when the cube is whole, byte by byte.
    """
    manifest, contents, damages = read_record(generation)
    expected = expected_objects(manifest, contents)
    for path, item in sorted(expected.items()):
        damage = _compare(generation.store, path, item)
        if damage is not None:
            damages.append(damage)
        advance()
    known = {*expected, MANIFEST}
    for file in sorted(generation.store.rglob("*")):
        path = str(file.relative_to(generation.store))
        if file.is_file() and path not in known:
            damages.append(Damage(path, "unknown", variable=_variable(path)))
    return damages


def _variable(path: str) -> str:
    return path.partition("/")[0] if "/" in path else ""


def _compare(store: Path, path: str, item: Expected) -> Damage | None:
    what: What
    try:
        size = (store / path).stat().st_size
        if size == item.content.size and sha256_of(store / path) == item.content.sha256:
            return None
        what, detail = "damaged", f"{size} bytes" if size != item.content.size else "other content"
    except FileNotFoundError:
        what, detail = "missing", ""
    except OSError as error:
        what, detail = "unreadable", error.strerror or str(error)
    return Damage(path, what, item.unit, _variable(path), detail)
