"""Stateful tests of a cube: random sequences of operations, checked against a model of the files on disk.

Generations are published, damaged, repaired, pinned, read and removed in any order, and each process that
writes may be killed at any change of the file system. The model is a few dictionaries; the disk must agree
with it after each step. ``STATEFUL_EXAMPLES=200`` runs 200 longer sequences, different ones each time.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, seed
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cube_editions import (
    ATTRIBUTES,
    FRAME,
    GRID,
    KEYS,
    PAIRS,
    RECORD,
    Editions,
    check_generation,
    check_phases,
    check_whole,
    clean_files,
    completed,
    edition_of,
    expected_phase,
    flip,
    is_pair,
    made,
    on_disk,
    pair_of,
    places_of,
    read_phase,
    sha256,
    stored,
)
from hephaestus_baselines.data.pinned_cubes import pin_cubes
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.frames import Pair
from hephaestus_build.core.settings import load_settings
from hephaestus_build.cube.granules import Granule
from hephaestus_build.cube.inventory import CubeInventory
from hephaestus_build.cube.reading.dataset import open_pinned_cube
from hephaestus_build.cube.reading.window_reader import WindowReader
from hephaestus_build.cube.storage.frame_folder import MANIFEST
from hephaestus_build.cube.storage.generations import FrameStore, Generation
from hephaestus_build.cube.storage.writer import write_cube_store
from hephaestus_build.cube.validation.checksums import verify_generation
from hephaestus_build.operations import repair as repairing
from kill_switch import KillSwitch

EXAMPLES = os.environ.get("STATEFUL_EXAMPLES")
#: Seed of the few sequences run by default, which together contain every kind of step.
SEED = 2

#: Changes at which a process is killed: none, any, or one after the images and tables are written.
KILLS = (
    st.none()
    | st.builds(KillSwitch, st.integers(0, 300))
    | st.builds(KillSwitch, st.integers(0, 9), st.just(MANIFEST))
)
CHANGES = st.dictionaries(st.sampled_from(KEYS), st.integers(0, 3), max_size=4)
REMOVED = st.sets(st.sampled_from(KEYS), max_size=1)
CHANCE = st.randoms(use_true_random=False)


@dataclass
class Published:
    """A generation in the model: its editions, the hash of each file, and the day it was published."""

    editions: Editions
    contents: CubeInventory
    files: dict[str, str]
    day: int

    @property
    def content(self) -> dict[str, str]:
        """Return the hashes of all files except the record, which contains times of download."""
        return {path: value for path, value in self.files.items() if path not in RECORD}


@dataclass
class Reader:
    """A reader that has opened a generation and reads from it later."""

    number: int
    editions: Editions
    phase: Callable[[Pair], np.ndarray]
    through: str
    verifies: bool
    seen: Any = None  # state of its generation at the last read


class CubeMachine(RuleBasedStateMachine):
    """State machine of one frame's cube, and the model of its files."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.settings = load_settings(data_dir=folder).for_standalone_simulated(folder)
        self.generations: dict[int, Published] = {}
        self.current: int | None = None
        self.before: int | None = None  # the generation published before the last writer started
        self.staged: dict[str, int] = {}
        self.pins: dict[str, tuple[int, dict[str, str]]] = {}
        self.readers: list[Reader] = []
        self.verified: dict[int, set[str]] = {}  # paths that `verify` reported in each generation
        self.day = 0

    # helpers of the steps

    def frame_store(self) -> FrameStore:
        """Return the frame store, opened as by a new process."""
        return FrameStore(self.settings.cubes_dir, FRAME)

    def store(self, number: int) -> Path:
        return self.frame_store().root / f"{number:06d}" / f"{FRAME}.zarr"

    def published_number(self) -> int | None:
        current = self.frame_store().published_generation()
        return current.number if current else None

    def differences(self, number: int) -> set[str]:
        """Return the paths at which a generation differs from what was published."""
        known, found = self.generations[number].files, on_disk(self.store(number))
        return {path for path in known.keys() | found.keys() if known.get(path) != found.get(path)}

    def gone(self, number: int, editions: Editions) -> bool:
        """Return whether a generation lacks a file that a build would link for some granules."""
        every = self.generations[number].editions
        places = self.generations[number].contents.chunk_keys
        granules = [stored(key, edition) for key, edition in editions.items() if key in every]
        # an epoch may be on both date axes; one file is then the source for both
        paths = {path for granule in granules for path in dict(places.keys(granule)).values()}
        return any(not (self.store(number) / path).exists() for path in paths)

    def forget_damaged_staging(self) -> None:
        """Drop staged granules with a damaged object, which no build uses; cubes may share their objects."""
        staging = self.frame_store().staging
        self.staged = {
            key: edition
            for key, edition in self.staged.items()
            if all(
                staging.chunk_path(stored(key, edition), name).read_bytes() == content
                for name, content in made(key, edition)[1].items()
            )
        }

    def run(self, work: Callable[[], object], kill: KillSwitch | None) -> bool:
        """Do the work of a process, and return whether it was killed."""
        self.before = self.published_number()
        if kill is None:
            work()
            return False
        return kill.run(work, self.folder)

    def restored(self) -> None:
        """Publish the newest generation if its link is missing, as every writer does first."""
        newest = max(self.generations, default=0)
        if newest > (self.current or 0) and (self.store(newest) / MANIFEST).exists():
            self.current = newest

    def let_pass(self, days: int) -> None:
        """Make all generations older by some days."""
        self.day += days
        for number in self.generations:
            folder = self.store(number).parent
            for path in filter(Path.exists, (folder / MANIFEST, folder)):
                then = path.stat().st_mtime - days * 86_400
                os.utime(path, (then, then))

    @staticmethod
    def planned(known: Editions, changes: Editions) -> dict[str, int]:
        """Return the editions that a build publishes, starting from the known ones; always with a pair."""
        granules = {**known, **changes}
        if not any(map(is_pair, granules)):
            granules[f"pair/{PAIRS[0]}"] = 0
        return completed(granules)

    def publish(self, changes: Editions, removed: Iterable[str]) -> None:
        """Publish as a build does: the published granules, the staged ones, and the new ones."""
        frame_store = self.frame_store()
        with frame_store.lock():
            previous = frame_store.published_generation()
            before = previous.read_inventory() if previous else None
            published = dict(before.granules) if before else {}
            known = {**published, **frame_store.staging.read_granules()}
            known = {key: granule for key, granule in known.items() if key not in {*removed}}
            granules = {
                key: known[key]
                if key in known and key not in changes
                else frame_store.staging.add(*made(key, changes.get(key, 0)))
                for key in self.planned(dict.fromkeys(known, 0), changes)
            }
            if before is None:
                contents = CubeInventory.new(GRID, granules, ATTRIBUTES)
            else:
                contents = before.succeed(GRID, granules, ATTRIBUTES, (), frame_store.history())

            def origin(granule: Granule) -> dict[str, str]:
                if before and published.get(granule.key) is granule:
                    assert previous
                    return {
                        name: f"{previous.store}/{path}" for name, path in before.chunk_keys.keys(granule)
                    }
                return frame_store.staging.chunk_paths(granule)

            with frame_store.new_generation() as store:
                frame_store.staging.sync(
                    granule for granule in granules.values() if published.get(granule.key) is not granule
                )
                write_cube_store(store, contents, origin)
            frame_store.staging.discard()

    def adopt(self, editions: Editions, *, killed: bool, nothing: bool = False) -> None:
        """Check what a writer left: a complete generation or none; `nothing`: it had nothing to do."""
        new = {*self.frame_store().generation_numbers()} - self.generations.keys()
        assert not new if nothing else len(new) == 1 or (killed and not new)
        for number in new:
            assert number == max(self.generations, default=0) + 1
            contents = Generation(number, self.store(number)).read_inventory()
            files = {path: sha256(content) for path, content in places_of(contents, editions).items()}
            files = on_disk(self.store(number)) | files
            self.generations[number] = Published(editions, contents, files, self.day)
            if not self.differences(number):  # damaged objects may be linked from the previous generation
                check_generation(self.store(number), editions)
        current = self.published_number()
        assert current in ({*new, self.before, self.current} if killed else new or {self.current})
        self.current = current

    def adopt_staging(self, *options: Mapping[str, int]) -> None:
        """Read which granules a writer left in its staging area, each in one of the given editions."""
        staged = self.frame_store().staging.read_granules()
        found = {key: edition_of(granule) for key, granule in staged.items()}
        assert all(edition in {each.get(key) for each in options} for key, edition in found.items())
        self.staged = found

    # steps

    @initialize(names=st.sets(st.sampled_from(PAIRS), min_size=1, max_size=3))
    def first_build(self, names: set[str]) -> None:
        self.build({f"pair/{name}": 1 for name in names}, set())
        self.open_reader("xarray", None)
        self.open_reader("windows", None)
        self.open_reader("name", None)

    @rule(changes=CHANGES, removed=REMOVED, kill=KILLS)
    def build(self, changes: dict[str, int], removed: set[str], kill: KillSwitch | None = None) -> None:
        """A build succeeds, is killed, or fails because an object that it needs is missing."""
        self.restored()
        known = {**self.generations[self.current].editions, **self.staged} if self.current else self.staged
        known = {key: edition for key, edition in known.items() if key not in removed}
        editions = self.planned(known, changes)
        added = {key: changes.get(key, 0) for key in editions if key not in known or key in changes}
        linked = {key: edition for key, edition in editions.items() if key not in {**self.staged, **added}}
        work = partial(self.publish, changes, removed)
        if self.current and self.gone(self.current, linked):
            with pytest.raises(HephaestusError, match="vanished"):
                work()
            self.staged = {**self.staged, **added}
        else:
            killed = self.run(work, kill)
            self.adopt(editions, killed=killed)
            self.adopt_staging(*((self.staged, added) if killed else ()))

    @rule(changes=CHANGES, removed=REMOVED)
    def build_in_peace(self, changes: dict[str, int], removed: set[str]) -> None:
        self.build(changes, removed)

    @precondition(lambda self: not self.staged)
    @rule(changes=CHANGES, kill=KILLS)
    def build_stops_before_publishing(self, changes: dict[str, int], kill: KillSwitch | None) -> None:
        def work() -> None:
            for key, edition in changes.items():
                self.frame_store().staging.add(*made(key, edition))

        killed = self.run(work, KillSwitch(kill.steps % 12) if kill else None)
        self.adopt_staging(changes)
        assert killed or self.staged == changes

    @precondition(lambda self: self.staged)
    @rule(chance=CHANCE)
    def staging_is_damaged(self, chance: random.Random) -> None:
        """A truncated ledger line and a damaged object: the granule is not used."""
        staging = self.frame_store().staging
        with (staging.folder / "ledger.jsonl").open("ab") as ledger:
            ledger.write(b'{"kind":"pair","name":"2019')
        granules = [granule for granule in staging.read_granules().values() if granule.objects]
        if granules:
            granule = chance.choice(sorted(granules, key=lambda granule: granule.key))
            flip(staging.chunk_path(granule, min(granule.objects)), chance)
            self.forget_damaged_staging()
            assert granule.key not in self.staged

    @rule(chance=CHANCE, how=st.sampled_from(["flip", "flip", "delete", "add"]))
    def cube_is_damaged(self, chance: random.Random, how: str) -> None:
        number = chance.choice(sorted(self.generations))
        store = self.store(number)
        path = chance.choice(sorted(on_disk(store).keys() - self.differences(number)))
        if how == "add":
            path = f"insar_difference/stranger{chance.randrange(3)}"
            (store / path).parent.mkdir(exist_ok=True)
            (store / path).write_bytes(b"x")
        elif path in RECORD and self.differences(number) & {*RECORD}:
            return  # keep one copy of the record intact: repair needs it
        elif how == "flip":
            flip(store / path, chance)
            self.forget_damaged_staging()
        else:
            (store / path).unlink()
            if path == f"../{MANIFEST}":  # its modification time was the age of the generation
                self.generations[number].day = self.day
        assert path in self.differences(number)

    @precondition(lambda self: any(map(self.differences, self.generations)))
    @rule(kill=KILLS)
    def repair(self, kill: KillSwitch | None) -> None:
        self.restored()
        if not self.current:  # the newest generation has neither a manifest nor a link
            with pytest.raises(HephaestusError, match="no cube to repair"):
                repairing.repair(FRAME, self.settings)
            return
        damaged = self.differences(self.current)
        editions = self.generations[self.current].editions

        def from_the_archives(*arguments: Any) -> dict[str, Granule]:
            frame_store = next(item for item in arguments if isinstance(item, FrameStore))
            broken = next(item for item in arguments if isinstance(item, list))
            return {key: frame_store.staging.add(*made(key, editions[key])) for key in broken}

        def work() -> None:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(repairing, "_rebuild", from_the_archives)
                result = repairing.repair(FRAME, self.settings)
            assert {damage.path for damage in result.damages} == damaged
            assert result.lost == result.changed == ()

        before = {*self.generations}
        self.adopt(editions, killed=self.run(work, kill), nothing=not damaged)
        assert not any(self.differences(number) for number in self.generations.keys() - before)

    @rule(
        days=st.sampled_from([8, 0]),
        keep=st.sampled_from([1, 2]),
        older_than=st.sampled_from([0, 7]),
        kill=KILLS,
    )
    def remove_old_generations(self, days: int, keep: int, older_than: int, kill: KillSwitch | None) -> None:
        self.let_pass(days)
        self.restored()
        numbers = sorted(self.generations)
        due = [
            number
            for number, successor in pairwise(numbers)
            if number not in numbers[-keep:]
            and self.day - self.generations[successor].day >= older_than
            and number != self.current
        ]
        removed: list[int] = []

        def work() -> None:
            frame_store = self.frame_store()
            with frame_store.lock():
                removed.extend(frame_store.remove_old(keep=keep, older_than=timedelta(days=older_than)))

        killed = self.run(work, kill)
        gone = self.generations.keys() - {*self.frame_store().generation_numbers()}
        assert gone <= {*due} if killed else sorted(gone) == due == removed
        for number in gone:
            del self.generations[number]
        current = self.published_number()
        assert current in ({self.before, self.current} if killed else {self.current})
        self.current = current

    @precondition(lambda self: self.current)
    @rule()
    def link_is_lost(self) -> None:
        self.frame_store().published_link.unlink()
        self.current = None

    @precondition(lambda self: self.current)
    @rule(name=st.sampled_from(["a", "b"]))
    def pin_generation(self, name: str) -> None:
        """A grid of runs starts or resumes: it reads its old generation, or gets an error if that is gone."""
        assert self.current
        folder, link = self.folder / "results" / name, self.settings.cubes_dir
        number, content = self.pins.setdefault(name, (self.current, self.generations[self.current].content))
        for other in (self.current, *sorted(self.generations, reverse=True)):
            if other == number:
                break
            if self.generations[other].content == content:
                number = other
                break
        if number in self.generations and (self.store(number) / "zarr.json").exists():
            pinned, changed = pin_cubes(link, folder)
            assert (pinned / f"{FRAME}.zarr").resolve() == self.store(number).resolve()
            assert changed == ([] if number == self.current else [str(FRAME)])
            self.pins[name] = number, content
        else:
            with pytest.raises(HephaestusError, match="is gone, the generation of"):
                pin_cubes(link, folder)

    @precondition(lambda self: self.current)
    @rule(through=st.sampled_from(["xarray", "windows", "name"]), verify=st.sampled_from([None, "first"]))
    def open_reader(self, through: str, verify: Any) -> None:
        assert self.current
        if through == "name" and self.differences(self.current):
            return  # plain xarray checks nothing
        link = self.frame_store().published_link
        try:
            if through == "windows":
                phase = partial(read_phase, WindowReader(link, verify=verify))
            else:
                plain = through == "name"
                cube = (
                    xr.open_zarr(link, chunks=None)
                    if plain
                    else open_pinned_cube(link, verify=verify, chunks=None)
                )

                def phase(pair: Pair) -> np.ndarray:
                    primary, secondary = map(np.datetime64, pair.dates)
                    at = cube.insar_difference.sel(primary_date=primary, secondary_date=secondary)
                    return at.values

        except HephaestusError:
            assert self.differences(self.current)
        else:
            editions = self.generations[self.current].editions
            self.readers = [
                *self.readers[-3:],
                Reader(self.current, editions, phase, through, verify == "first"),
            ]

    # invariants

    @invariant()
    def readers_get_their_own_generation(self) -> None:
        """A reader gets the content of its generation, or an error once that is removed or damaged."""
        for reader in self.readers:
            if reader.through == "name":
                continue
            gone = reader.number not in self.generations
            damaged = not gone and self.differences(reader.number)
            if reader.seen == (gone, damaged):
                continue
            reader.seen = gone, damaged
            for key in filter(is_pair, reader.editions):
                try:
                    read = reader.phase(pair_of(key))
                except HephaestusError:
                    assert gone or damaged
                except (RuntimeError, ValueError, KeyError):  # objects that zarr cannot decode, lost dates
                    assert damaged
                    assert reader.through == "xarray"
                    assert not reader.verifies
                else:
                    if reader.verifies or not damaged:
                        np.testing.assert_array_equal(read, expected_phase(key, reader.editions[key]))

    @invariant()
    def readers_by_name_get_right_values_or_an_error(self) -> None:
        """A plain reader of the link gets what the pair has now, or an error; never another pair's phase.

        Never no data in place of data either, until `gc` has removed the generation that it opened.
        """
        if not self.current or (damaged := self.differences(self.current)):
            return
        for reader in self.readers:
            if reader.through != "name" or reader.number not in self.generations:
                continue
            if reader.seen == (self.current, damaged):
                continue
            reader.seen = self.current, damaged
            now = self.generations[self.current].editions
            for key in filter(is_pair, reader.editions):
                try:
                    read = reader.phase(pair_of(key))
                except (RuntimeError, ValueError):  # raised by zarr for objects that it cannot decode
                    assert reader.number != self.current
                else:
                    if not reader.editions[key] and not read.any():
                        continue  # there was no data when it opened the cube
                    assert now.get(key, 0), f"no data in place of {key}"
                    np.testing.assert_array_equal(read, expected_phase(key, now[key]))

    @invariant()
    def disk_is_as_the_model_says(self) -> None:
        frame_store = self.frame_store()
        assert frame_store.generation_numbers() == sorted(self.generations)
        assert self.published_number() == self.current
        for number, published in self.generations.items():
            damaged = self.differences(number)
            if self.verified.get(number) != damaged:
                found = verify_generation(Generation(number, self.store(number)))
                assert {damage.path for damage in found} == damaged
                if not damaged:
                    check_phases(self.store(number), published.editions)
                self.verified[number] = damaged
        assert {
            key: edition_of(granule) for key, granule in frame_store.staging.read_granules().items()
        } == self.staged

    def teardown(self) -> None:
        """After any sequence the published cube has the same hashes as one built from scratch."""
        try:
            if self.current and not self.differences(self.current):
                published = self.generations[self.current]
                check_whole(self.frame_store().published_link, published.editions)
                assert published.content == clean_files(published.contents, published.editions)
        finally:
            shutil.rmtree(self.folder)


@pytest.mark.timeout(6 * 3600 if EXAMPLES else 900)
def test_any_sequence_of_steps_leaves_what_the_model_says(tmp_path_factory: pytest.TempPathFactory) -> None:
    def machine() -> CubeMachine:
        return CubeMachine(tmp_path_factory.mktemp("cube"))

    run_state_machine_as_test(
        machine if EXAMPLES else seed(SEED)(machine),
        settings=examples(
            max_examples=int(EXAMPLES or 5),
            stateful_step_count=40 if EXAMPLES else 12,
            database=None,
            deadline=None,
            suppress_health_check=[*HealthCheck],
        ),
    )
