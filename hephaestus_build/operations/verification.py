"""Verification of a published cube: everything that is wrong with it, and the command that mends it.

``verify`` and ``repair`` go by this module, so that the command that one of them names is the one that helps.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hephaestus_build.core.plain_files import read_plain_file
from hephaestus_build.core.progress import ProgressListener
from hephaestus_build.cube.inventory import CubeInventory
from hephaestus_build.cube.schema_versions import UPGRADE, is_later_schema
from hephaestus_build.cube.storage.generations import Generation
from hephaestus_build.cube.storage.manifest import MAX_RECORD_BYTES
from hephaestus_build.cube.storage.writer import encode_metadata
from hephaestus_build.cube.validation.checksums import Damage, read_record, verify_generation
from hephaestus_build.cube.validation.record_consistency import UNREPAIRABLE, check_record_consistency
from hephaestus_build.cube.validation.schema_conformance import check_schema
from hephaestus_build.cube.validation.wording import describe_wording, has_other_wording

#: What helps: ``repair`` rebuilds the damaged objects, ``migrate`` rewrites the cube in the schema of this
#: version, ``upgrade`` installs a version that knows its schema, ``rebuild`` removes the generation and
#: builds the frame again.
Remedy = Literal["repair", "migrate", "upgrade", "rebuild"]


@dataclass(frozen=True)
class CubeVerification:
    """What is wrong with a published cube.

    Attributes
    ----------
    damages : tuple of Damage
        Objects that are not as they were published, else metadata and tables that contradict the record.
    remedy : {"repair", "migrate", "upgrade", "rebuild"}
        What mends all of them; of an undamaged cube of another schema, what brings it over.
    false_record : str
        Why the record itself cannot be used, if so.
    is_outdated : bool
        Whether the cube was written with another schema.
    has_other_wording : bool
        Whether descriptive texts of its metadata are those of another version.
    """

    damages: tuple[Damage, ...] = ()
    remedy: Remedy = "repair"
    false_record: str = ""
    is_outdated: bool = False
    has_other_wording: bool = False

    def describe_remedy(self, target: str, store: Path) -> str:
        """Return the command that mends the damages, in words.

        Parameters
        ----------
        target : str
            Argument of the command: the frame, and ``--simulated`` if the frame alone means another cube.
        store : pathlib.Path
            Where the generation is.
        """
        if self.remedy == "repair":
            return f"`hephaestus repair {target}` mends it"
        if self.remedy == "upgrade":
            return f"{UPGRADE}, and `hephaestus repair {target}` mends it then"
        if self.remedy == "rebuild":
            return (
                f"remove {store.parent} and the link to it, and `hephaestus build {target}` builds it again"
            )
        frame = target.removesuffix(" --simulated")
        return (
            f"`hephaestus migrate {frame}` brings the cube over from an earlier schema without what is "
            f"damaged, and `hephaestus build {target}` makes that again"
        )

    def describe_version(self, frame: str) -> str:
        """Return what another version wrote and how it is brought over; empty if there is nothing."""
        if self.remedy == "upgrade":
            return f"every object is as it was published, in a later schema than this version's; {UPGRADE}"
        if self.is_outdated:
            return (
                f"every object is as it was published; its values are checked once `hephaestus migrate "
                f"{frame}` has brought it over from an earlier schema"
            )
        if self.has_other_wording:
            return describe_wording(frame)
        return ""


def verify_cube(generation: Generation, listener: ProgressListener | None = None) -> CubeVerification:
    """Compare every stored object with what was published, and metadata and tables with schema and record.

    Parameters
    ----------
    generation : Generation
        The generation to verify; all of its bytes are read.
    listener : ProgressListener, optional
        Receives the progress.

    Raises
    ------
    HephaestusError
        If no copy of the provenance can be read.
    """
    damages = tuple(verify_generation(generation, listener))
    objects, contents = read_record(generation)
    if contents.is_outdated:
        lost = damages and (not objects or any(damage.path == "zarr.json" for damage in damages))
        later = is_later_schema(contents.schema_version)
        return CubeVerification(
            damages, "upgrade" if later else "rebuild" if lost else "migrate", is_outdated=True
        )
    if damages:
        return CubeVerification(damages)
    return _compare_with_record(generation, contents, listener)


def _compare_with_record(
    generation: Generation, contents: CubeInventory, listener: ProgressListener | None
) -> CubeVerification:
    """Compare metadata and tables that match the manifest with the schema and the record."""
    wrong = check_schema(generation.store)
    if wrong:  # repairable if it differs from what the record gives
        right = encode_metadata(contents).items()
        lost = [] if any(_read_stored_file(generation, path) != new for path, new in right) else wrong
    else:
        wrong = check_record_consistency(generation, listener)
        lost = [finding for finding in wrong if finding.where in UNREPAIRABLE]
    damages = tuple(Damage(item.where, "damaged", variable=item.where, detail=item.what) for item in wrong)
    if lost:
        return CubeVerification(damages, "rebuild", false_record=str(lost[0]))
    return CubeVerification(damages, has_other_wording=not wrong and has_other_wording(generation.store))


def _read_stored_file(generation: Generation, path: str) -> bytes:
    """Return a stored file; empty where it is none."""
    try:
        return read_plain_file(generation.store, path, MAX_RECORD_BYTES)
    except (OSError, ValueError):
        return b""
