"""Whether a cube is still what was published, byte by byte."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hephaestus_build.cube.contents import Contents
from hephaestus_build.cube.files import sha256_of
from hephaestus_build.cube.generation import MANIFEST, PROVENANCE, Generation
from hephaestus_build.cube.manifest import unseal
from hephaestus_build.cube.units import Places, StoredObject
from hephaestus_build.progress import Listener, Silent

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


def expected_objects(objects: Mapping[str, Any], contents: Contents) -> dict[str, Expected]:
    """Return what should stand where, by path.

    The objects of units are taken from the provenance, which is the truth; metadata and tables, which
    follow from it, from the manifest's list.
    """
    expected = {path: Expected(StoredObject(*value)) for path, value in objects.items()}
    places = Places(contents.axes)
    for unit in contents.units.values():
        for name, path in places.keys(unit):
            expected[path] = Expected(unit.objects[name], unit.key)
    return expected


def read_record(generation: Generation) -> tuple[dict[str, Any], Contents, list[Damage]]:
    """Return a generation's list of objects and its contents, from the second copies where need be.

    Raises
    ------
    HephaestusError
        If no copy of the provenance can be read.
    """
    folders = [generation.store, generation.store.parent]
    lists = [_objects(folder / MANIFEST) for folder in folders]
    objects = next((found for found in lists if found is not None), {})
    damages = []
    if lists[0] is None:
        damages.append(Damage(MANIFEST, "damaged" if (generation.store / MANIFEST).exists() else "missing"))
    recorded = objects.get(PROVENANCE, [None])[0]
    for folder in folders:
        path = folder / PROVENANCE
        if path.is_file() and recorded in (None, sha256_of(path)):
            return objects, Contents.from_json(json.loads(path.read_bytes())), damages
    return objects, generation.contents(), damages


def _objects(manifest: Path) -> dict[str, Any] | None:
    try:
        return unseal(manifest.read_bytes())
    except (OSError, ValueError, TypeError):
        return None


def verify_content(generation: Generation, listener: Listener | None = None) -> list[Damage]:
    """Read every stored object of a generation and compare it with what was published.

    Parameters
    ----------
    generation : Generation
        The cube.
    listener : Listener, optional
        Who wants to know how far it is.

    Returns
    -------
    list of Damage
        Empty when the cube is whole, byte by byte.
    """
    objects, contents, damages = read_record(generation)
    expected = expected_objects(objects, contents)
    listener = listener or Silent()
    listener.stage("objects", len(expected))
    for path, item in sorted(expected.items()):
        damage = _compare(generation.store, path, item)
        if damage is not None:
            damages.append(damage)
        listener.advance("objects")
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
