"""Stored objects that are compared with the manifest when they are first read.

Readers take parts of objects, and nothing in phase, coherence or DEM tells a flipped bit from data. A reader
that is asked to check hashes each object whole before it reads any of it, once in each process.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.plain_files import FileIdentity, hash_descriptor, is_real_folder
from hephaestus_build.cube.storage.generations import Generation, generation_number
from hephaestus_build.cube.validation.checksums import Damage, DamageKind, variable_of_path, with_granules

#: When a reader compares objects with the manifest: ``"first"`` = when it first reads them; None = never.
VerifyMode = Literal["first"] | None


class ObjectVerifier:
    """The objects of one store, each compared with the manifest when it is first asked for.

    Safe to use from several threads; a copy in another process begins from nothing.

    Parameters
    ----------
    store : pathlib.Path
        A generation's store itself.
    """

    def __init__(self, store: Path) -> None:
        self.store = store
        self._verified: set[str] = set()

    def __reduce__(self) -> Any:
        return ObjectVerifier, (self.store,)

    @cached_property
    def _generation(self) -> Generation:
        return Generation(generation_number(self.store) or 0, self.store)

    @cached_property
    def _objects(self) -> dict[str, list[Any]]:
        return self._generation.read_manifest()

    def verify(self, path: str, descriptor: int, facts: FileIdentity) -> None:
        """Compare an open object with the manifest.

        Parameters
        ----------
        path : str
            Of the object in the store.
        descriptor : int
            At its beginning; who reads on from it names positions.
        facts : FileIdentity
            Of the descriptor.

        Raises
        ------
        HephaestusError
            If it is not what was published.
        """
        if path in self._verified:
            return
        listed = self._objects.get(path)
        if listed is None:
            raise self._error(path, "unknown", "no build published it")
        expected, size = listed
        if facts.size != size:
            raise self._error(path, "damaged", f"{facts.size} bytes instead of {size}")
        if hash_descriptor(descriptor, size) != expected:
            raise self._error(path, "damaged", "other content")
        self._verified.add(path)

    def verify_absent(self, path: str) -> None:
        """Raise HephaestusError where an object is not there and should be: it would read as no data."""
        if path in self._objects:
            raise self._error(path, "missing", "")

    def _error(self, path: str, what: DamageKind, detail: str) -> HephaestusError:
        damage = Damage(path, what, variable=variable_of_path(path), detail=detail)
        (damage,) = with_granules(self._generation, [damage])
        frame = self.store.stem
        return HephaestusError(f"{frame}: {damage}; `hephaestus repair {frame}` rebuilds it")


def check_absent(store: Path, path: str, checks: ObjectVerifier | None) -> None:
    """Raise where an object that was not found must not be read as no data.

    Parameters
    ----------
    store : pathlib.Path
        The store that a reader has opened.
    path : str
        Of the object in the store.
    checks : ObjectVerifier, optional
        What compares objects with the manifest, if the reader was asked to.

    Raises
    ------
    HephaestusError
        If the whole store was removed since it was opened, or the manifest lists the object.
    """
    if not is_real_folder(store):
        frame, number = store.stem, generation_number(store)
        what = f"generation {number} in {store.parent}" if number else f"the cube at {store}"
        raise HephaestusError(
            f"{frame}: {what} was removed while it was read (`hephaestus gc` removes old generations); "
            f"open {frame} again, or run the same command again, to read the published one"
        )
    if checks is not None:
        checks.verify_absent(path)


def make_object_verifier(store: Path, verify: VerifyMode) -> ObjectVerifier | None:
    """Return what compares the objects of a store, if a reader is asked to.

    Raises
    ------
    UsageError
        If `verify` is neither None nor ``"first"``.
    """
    if verify is None:
        return None
    if verify != "first":
        raise UsageError(f'verify is {verify!r}: it is None or "first"')
    return ObjectVerifier(store)
