"""Verification of stored objects against the manifest when they are first read.

Phase, coherence and DEM have no checksum per tile, so a flipped bit reads as data. With ``verify="first"``, a
reader hashes each complete object before it reads any part of it, once per process.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.plain_files import FileIdentity, hash_descriptor, is_plain_file, is_real_folder
from hephaestus_build.cube.key_spaces import RETIRED_CHUNK
from hephaestus_build.cube.storage.frame_folder import MANIFEST
from hephaestus_build.cube.storage.generations import Generation, generation_number
from hephaestus_build.cube.validation.checksums import Damage, DamageKind, variable_of_path, with_granules

#: When a reader compares objects with the manifest: ``"first"``: when it first reads them; None: never.
VerifyMode = Literal["first"] | None


class ObjectVerifier:
    """Compares the objects of one store with its manifest, each one once.

    Thread-safe. A pickled copy does not remember which objects were verified.

    Parameters
    ----------
    store : pathlib.Path
        The store of a generation, not a link to it.
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
            Path of the object in the store.
        descriptor : int
            File descriptor at the beginning of the object. Hashing moves its position; callers use ``pread``.
        facts : FileIdentity
            Identity and size of the open file.

        Raises
        ------
        HephaestusError
            If the object's size or hash differs from the manifest, or the manifest does not list it.
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
        """Raise HephaestusError if the manifest lists an object that was not found."""
        if path in self._objects:
            raise self._error(path, "missing", "")

    def _error(self, path: str, what: DamageKind, detail: str) -> HephaestusError:
        damage = Damage(path, what, variable=variable_of_path(path), detail=detail)
        (damage,) = with_granules(self._generation, [damage])
        frame = self.store.stem
        return HephaestusError(f"{frame}: {damage}; `hephaestus repair {frame}` rebuilds it")


def is_retired(descriptor: int, size: int) -> bool:
    """Whether an open object of the generation that is read stands for an image that was lost.

    Readers by name must get an error there, in place of what they knew. Who reads a pinned generation knows
    that it has no data.
    """
    return size == len(RETIRED_CHUNK) and os.pread(descriptor, size, 0) == RETIRED_CHUNK


def check_absent(store: Path, path: str, checks: ObjectVerifier | None) -> None:
    """Check that an object that was not found may be read as no data.

    Parameters
    ----------
    store : pathlib.Path
        The store that the reader opened.
    path : str
        Path of the object in the store.
    checks : ObjectVerifier, optional
        Compares objects with the manifest; None if the reader does not verify.

    Raises
    ------
    HephaestusError
        If the store was removed after it was opened, or the manifest lists the object.
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
    """Return the verifier of a store, or None if `verify` is None.

    Raises
    ------
    UsageError
        If `verify` is neither None nor ``"first"``.
    """
    if verify is None:
        return None
    if verify != "first":
        raise UsageError(f'verify is {verify!r}; it must be None or "first"')
    return ObjectVerifier(store)


def choose_verification(store: Path) -> VerifyMode:
    """Return ``"first"`` where a store has a manifest to compare with, None where it has none."""
    return "first" if is_plain_file(store, MANIFEST) else None
