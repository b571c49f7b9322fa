"""Tests of the documentation: its Python code runs, and its commands and options exist."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main

import toy_benchmark
import toy_cube
from annotation_files import good_file, quiet_file, tar_of
from checkout import PACKAGES, ROOT
from doc_pages import blocks, hephaestus_arguments, pages, shell_commands
from hephaestus_build.cli import app
from hephaestus_build.core.errors import MissingProductsError, UsageError

#: Blocks of Python that are marked as not run (`<!-- not run: why -->` before the fence), by page.
NOT_RUN: dict[str, int] = {
    "README.md": 1,
    "docs/architecture.md": 1,
    "docs/clusters.md": 1,
    "docs/models.md": 1,
    "docs/readers.md": 4,
    "docs/scoring.md": 1,
}
#: What is made smaller so that a block ends soon, by page.
SHORTENED = {
    "docs/training.md": (
        ("num_workers=2", "num_workers=0"),
        ("range(10)", "range(1)"),
        ("epochs=10", "epochs=1"),
    )
}

REAL_FRAME, MAUNA_LOA, SIMULATED_FRAME = "124D_04854_171313", "087D_07004_060904", "198A_00210_131313"
#: Lines that are shown since they are refused, with what is said.
REFUSED = {
    ("plan", "Colima"): "names 2 frames",
    # needs a cube with unwrapped phase
    ("export", REAL_FRAME, "--to", "mintpy", "--out", "mintpy/"): "look_up` adds it",
}
#: What the stand-ins have in place of what lines of the shell name.
STAND_INS = {
    "20160909_20160921": "20190106_20190118",
    "20160909_20161003": "20190106_20190130",
    "path/to/cube.zarr": f"data/cubes/{REAL_FRAME}.zarr",
    "docs/examples/jobs.yaml": f"{ROOT}/docs/examples/jobs.yaml",
    "portal/": "portal/ --epochs 2 --frame 198A_00210_131313",
}
#: Why lines of `hephaestus` are not run, and how many there are.
LEFT_OUT = {
    "asks the real archives": 22,
    "trains, or needs what was trained": 35,
    "serves until it is stopped": 3,  # test_archives_are_served_as_pages_say runs them
    "is part of a script that is not run": 2,
    "asks the npm registry": 1,  # tests/integration/pages/test_full_resolution.py
}
#: Other programs that lines of the shell run, and why they are not run here; :data:`PLAIN` ones are.
OTHER_PROGRAMS = {
    "make": "test_make_has_the_targets_that_pages_name",
    "pip": "installs",
    "uvx": "installs",
    "hf": "fetches from a hub",
    "podman": "needs podman",
    "systemctl": "needs systemd",
    "journalctl": "needs systemd",
    "rsync": "copies to another machine",
    "cp": "writes to the folders of systemd",
    "docker": "needs Docker",
    "prefect": "needs a server; tests/integration/flows",
    "dask": "tests/integration/cluster/test_cluster_page.py",
    "ssh": "tests/integration/cluster/test_cluster_page.py",
    "kubectl": "needs Kubernetes; tests/integration/cluster/test_cluster_page.py",
    "gdalinfo": "tests/integration/readers",
    "LiCSBAS01_get_geotiff.py": "needs LiCSBAS",
    "LiCSBAS02_ml_prep.py": "needs LiCSBAS",
    "smallbaselineApp.py": "needs MintPy",
    "git": "docs/architecture.md",
    "python": "python -m pytest",
    "source": "needs an environment",
    ".ci/run": "runs the tests",
    "pre-commit": "installs",
}
#: Programs of any machine: blocks of these and `hephaestus` alone are run by bash.
PLAIN = {"cat", "cut", "hephaestus", "jq", "ln", "mkdir", "tail"}

PYTHON = [page for page in pages() if any(block.language == "python" for block in blocks(page))]
COMMANDS = [
    (page, words)
    for page in pages()
    for block in blocks(page)
    if block.language not in ("python", "json")
    for words in hephaestus_arguments(block.code)
]


@pytest.fixture(scope="module")
def documented_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder after `make cubes`, with stand-ins for a cube and annotations of the real archives."""
    folder = tmp_path_factory.mktemp("docs")
    work, data = folder / "work", folder / "work" / "data"
    work.mkdir()
    hawaii = {"frameID": "087D_07004_060904", "primary_date": "20180517", "secondary_date": "20180529"}
    with contextlib.chdir(work):
        assert _run(*_command_of_make_cubes()) == 0
        for frame in (REAL_FRAME, MAUNA_LOA):
            toy_benchmark.toy_cubes(data / "cubes", frame=frame, secondaries=3)
        files = {"1.json": good_file(**hawaii)}
        for number, day in enumerate(("18", "30"), 2):
            pair = {"primary_date": "20190106", "secondary_date": f"201901{day}"}
            files[f"{number}.json"] = quiet_file(number, frameID=REAL_FRAME, **pair)
        tar_of(data / "annotations.tar.gz", files)
        shutil.copy(data / "simulated" / "runs.jsonl", data / "runs.jsonl")
        assert _run("splits", "write", "strict-temporal", "--cubes", "data/cubes", "--data-dir", "data") == 0
        assert _run("export", REAL_FRAME, "--to", "geotiff", "--out", "export/", "--data-dir", "data") == 0
        assert _run("catalog", "--out", "data/catalog", "--data-dir", "data") == 0
    return folder


def _command_of_make_cubes() -> list[str]:
    """Return the arguments of the command that the Makefile runs for `make cubes`."""
    recipe = re.search(r"^cubes:.*\n\t(.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert recipe is not None
    command = re.sub(r"\$\(or .*--simulated\).*\)$", "--simulated)", recipe[1])
    words = re.search(r"/hephaestus ([\w -]+)\)", command)
    assert words is not None, command
    return words[1].split()


def _run(*words: str) -> int:
    return typer.main.get_command(app)(list(words), standalone_mode=False) or 0


@pytest.fixture
def work(documented_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, which is the current one; a second data folder is at ``../other/data``."""
    folder = tmp_path / "work"
    shutil.copytree(documented_folder / "work", folder, symlinks=True)
    (tmp_path / "other").symlink_to(folder)
    monkeypatch.chdir(folder)
    return folder


def run_page(page: str) -> dict[str, Any]:
    """Run the blocks of Python of a page in order, as one program, and return its names."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for shown, _ in SHORTENED.get(page, ()):
        assert any(shown in block.code for block in blocks(page))
    for block in blocks(page):
        if block.language == "python" and not block.not_run:
            code = block.code
            for shown, short in SHORTENED.get(page, ()):
                code = code.replace(shown, short)
            # errors name the line of the page
            exec(compile("\n" * (block.line - 1) + code, ROOT / page, "exec"), names)
    return names


@pytest.mark.parametrize("page", [page for page in PYTHON if page != "docs/training.md"])
@pytest.mark.usefixtures("work")
def test_python_on_a_page_runs(page: str) -> None:
    names = run_page(page)
    if "cube" in names:
        assert names["cube"].attrs["frame"] in (SIMULATED_FRAME, REAL_FRAME)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # of Lightning on small runs
def test_the_loader_works_in_ones_own_training(work: Path) -> None:
    pytest.importorskip("torch")
    seen = run_page("docs/training.md")
    # a series of each kind from each of the two cubes
    assert seen["images"].shape == (4, 27, 512, 512)
    assert seen["images"].isfinite().all()
    assert sorted(seen["label"].tolist()) == [0, 0, 1, 1]
    assert seen["mask"].any((1, 2)).tolist() == seen["label"].bool().tolist()
    assert (work / "sample.png").stat().st_size > 10_000
    # the loop of others has trained on windows of the same cubes
    assert seen["mine"].trainer.global_step > 0
    assert (work / "window.png").stat().st_size > 10_000


def test_open_cube_is_shown_to_pin_the_generation(work: Path) -> None:
    for page in ("README.md", "docs/cube.md"):
        assert "000001" in run_page(page)["cube"].encoding["source"]


def test_blocks_that_are_not_run_are_counted() -> None:
    found = {page: sum(bool(block.not_run) for block in blocks(page)) for page in PYTHON}
    assert {page: count for page, count in found.items() if count} == NOT_RUN


@pytest.mark.parametrize(
    "words", [pytest.param(words, id=f"{page}: {' '.join(words)}") for page, words in COMMANDS]
)
def test_a_command_line_is_accepted(words: list[str]) -> None:
    command = typer.main.get_command(app)
    arguments = [toy_cube.FRAME if word.startswith("$") else word for word in words]
    context = command.make_context("hephaestus", arguments)
    while hasattr(context.command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        name, command, rest = context.command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
    assert not context.args


#: Code in prose, messages and docstrings that is a command, with or without the program's name.
SPAN = re.compile(r"`+(?:hephaestus )?(?P<words>[a-z][a-z-]* [^`\n]*--[a-z][^`\n]*)`+")
#: Where a literal of Python goes on in its next line.
CONTINUED = re.compile(r'"\n\s*f?"')


@cache
def command_at(path: tuple[str, ...]) -> Any:
    """Return a command or a group of commands by its words; None if there is none."""
    if not path:
        return typer.main.get_command(app)
    group = command_at(path[:-1])
    known = hasattr(group, "list_commands") and path[-1] in group.list_commands(None)
    return group.get_command(None, path[-1]) if known else None


def unknown_options(text: str) -> list[str]:
    """Return the commands in code spans that have an option which the command lacks."""
    found = []
    for span in SPAN.finditer(text):
        words = span["words"].split()
        command = command_at(tuple(words[:2])) or command_at(tuple(words[:1]))
        if command is not None and not hasattr(command, "list_commands"):
            known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
            given = {word.split("=")[0].rstrip(".,:;)]") for word in words if word.startswith("--")}
            found += [span[0]] if given - known - {"--help"} else []
    return found


def test_options_that_prose_and_messages_name_exist() -> None:
    assert unknown_options("run `hephaestus benchmark tables --out x`, ``build --wait`` or `verify`") == [
        "`hephaestus benchmark tables --out x`"
    ]
    wrong = {}
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        if path.name != "CHANGELOG.md" and "_build" not in path.parts:
            wrong[path.relative_to(ROOT)] = unknown_options(path.read_text(encoding="utf-8"))
    for path in (path for package in PACKAGES for path in package.rglob("*.py")):
        wrong[path.relative_to(ROOT)] = unknown_options(CONTINUED.sub("", path.read_text(encoding="utf-8")))
    assert {path: spans for path, spans in wrong.items() if spans} == {}


def why_left_out(words: list[str]) -> str:
    """Return why a line of `hephaestus` cannot run offline; empty if it can."""
    if words[0] == "benchmark" and words[1] != "plan":
        return "trains, or needs what was trained"
    if words[:2] == ["archive", "serve"]:
        return "serves until it is stopped"
    if "--full-resolution" in words:
        return "asks the npm registry"
    if any(word.startswith("$") for word in words):
        return "is part of a script that is not run"
    if words == ["plan", "Colima"]:  # refused before any archive is asked
        return ""
    asking = {"--upstream", "--update"} & {*words} or words[1:] == ["fetch"]
    offline = (words[0] == "plan" and {"--all", "--published"} & {*words}) or "--dry-run" in words
    asks = words[0] in ("plan", "build", "watch", "apply") or asking
    return "asks the real archives" if asks and not offline and "--simulated" not in words else ""


def runnable(words: list[str]) -> list[str]:
    """Return a line with stand-ins, without what stands for something of one's own (NAME, --cubes FOLDER)."""
    kept: list[str] = []
    for word in words:
        if re.fullmatch(r"[A-Z]+(\.\.\.)?\]?", word):
            if kept[-1].startswith("--"):
                kept.pop()
        else:
            kept += STAND_INS.get(word, word).split()
    return kept


SHELL_PAGES = sorted({page for page, words in COMMANDS if not why_left_out(words)})


@pytest.mark.parametrize("page", SHELL_PAGES)
@pytest.mark.usefixtures("work")
def test_lines_of_the_shell_run(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree("export")  # which lines of the page make themselves
    monkeypatch.setattr(
        "hephaestus_build.simulation.server.static_export.write_static_archive", _write_little
    )
    for words in (words for name, words in COMMANDS if name == page and not why_left_out(words)):
        if said := REFUSED.get(tuple(words)):
            with pytest.raises(UsageError, match=said):
                _run(*words)
            continue
        with contextlib.suppress(MissingProductsError):  # done, and something is missing
            assert _run(*runnable(words)) == 0, words


def _write_little(archive: Any, folder: Path, **_: Any) -> int:
    """Stand for `archive write`, which writes for a minute (tests/integration/simulation)."""
    folder.mkdir()
    return len(archive.world.frames)


def test_archives_are_served_as_pages_say() -> None:
    program = Path(sys.executable).with_name("hephaestus")
    lines = [words for _, words in COMMANDS if words[:2] == ["archive", "serve"]]
    with contextlib.ExitStack() as running:
        servers = [
            running.enter_context(
                # at a free port each
                subprocess.Popen([program, *words, "--port", "0"], stdout=subprocess.PIPE, text=True)
            )
            for words in lines
        ]
        for server in servers:
            running.callback(server.kill)
        for server in servers:
            assert server.stdout is not None
            assert "HEPHAESTUS_LICSAR_URL=http://127.0.0.1:" in server.stdout.readline()
            server.send_signal(signal.SIGTERM)
            assert server.wait(60) == 143
    assert len(lines) == LEFT_OUT["serves until it is stopped"]


def test_lines_that_are_not_run_are_counted() -> None:
    found = Counter(why_left_out(words) for _, words in COMMANDS)
    del found[""]
    assert found == LEFT_OUT


def test_every_other_program_is_run_or_has_its_reason() -> None:
    for page in [*pages(), "CONTRIBUTING.md"]:
        for block in blocks(page):
            if block.language in ("sh", "bash", "console"):
                assert programs_of(block.code) <= {*OTHER_PROGRAMS, *PLAIN, *SHELL_WORDS}, (
                    f"{page}:{block.line}"
                )


def programs_of(code: str) -> set[str]:
    """Return the programs that lines of the shell run; the text of a here-document is none."""
    code = re.sub(r"<<'(\w+)'\n.*?\n\1\n", "\n", code, flags=re.DOTALL)
    lines = (words for words in shell_commands(code) if words and words[0] and "=" not in words[0])
    return {words[0] for words in lines}


#: Words of bash in scripts of a cluster and of LiCSBAS.
SHELL_WORDS = {"srun", "[", "exit", "export", "for", "do", "done", "cd", "grep", "mv", "kill"}
PLAIN_BLOCKS = [
    pytest.param(block.code, id=f"{page}:{block.line}")
    for page in pages()
    for block in blocks(page)
    if block.language == "sh" and (used := programs_of(block.code)) <= PLAIN and used - {"hephaestus"}
]


@pytest.mark.parametrize("code", PLAIN_BLOCKS)
@pytest.mark.usefixtures("work")
def test_lines_of_any_shell_run(code: str) -> None:
    if missing := [name for name in programs_of(code) if not shutil.which(name, path=PATH)]:
        pytest.skip(f"needs {', '.join(missing)}")
    environment = {**os.environ, "PATH": PATH}
    subprocess.run(["bash", "-euo", "pipefail", "-c", code], check=True, env=environment)


PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def test_the_blocks_of_any_shell_are_found() -> None:
    assert len(PLAIN_BLOCKS) == 5


def test_the_pages_have_their_command_lines() -> None:
    assert len(COMMANDS) >= 40
    assert {words[0] for _, words in COMMANDS} >= {
        "build",
        "plan",
        "splits",
        "annotations",
        "benchmark",
        "export",
    }


def test_make_has_the_targets_that_pages_name() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in [*pages(), "CONTRIBUTING.md"]:
        for block in blocks(page):
            if block.language in ("sh", "bash", "console"):
                for words in shell_commands(block.code):
                    if words[:1] == ["make"]:
                        assert words[1] in targets, f"{page}: make {words[1]}"


@pytest.mark.parametrize("page", [*pages(), *sorted(path.name for path in ROOT.glob("[!R]*.md"))])
def test_links_lead_to_files(page: str) -> None:
    """A folder is a page on the code host, but not on the site."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text):
        assert (ROOT / page).parent.joinpath(target).is_file(), f"{page}: {target}"


@pytest.mark.parametrize("page", pages())
def test_simulated_cubes_are_shown_where_they_stand(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert not re.search(r"(?<!simulated/)cubes/(17[6-9]|1[89]\d|[2-9]\d\d)[AD]_", text)


#: Commands that install or run a package by its name.
INSTALLERS = r"(?:uvx|pipx (?:run|install)|uv tool (?:run|install)|uv add|(?:pip|conda) install)"
#: Such a command with the name of somebody else's package.
OTHERS_PACKAGE = re.compile(rf"{INSTALLERS}\s+(?:--?[\w-]+\s+)*['\"]?hephaestus(?![-_]build|[-_\w])")


def test_no_document_and_no_help_installs_the_package_of_others() -> None:
    """On the package index `hephaestus` is somebody else's."""
    folders = ("docs", "hephaestus_build", "baselines", "flows", ".github")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*") if "_build" not in path.parts]
    texts = {".md", ".py", ".ipynb", ".yml", ".yaml", ".json"}
    found = [path for path in (*ROOT.iterdir(), *paths) if path.suffix in {*texts, ".toml", ""}]
    said = {}
    for path in found:
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            said[path.relative_to(ROOT)] = [hit[0] for hit in OTHERS_PACKAGE.finditer(text)]
    assert {Path("README.md"), Path("Containerfile"), Path("docs/operating.md")} <= said.keys()
    assert {path: hits for path, hits in said.items() if hits} == {}


@pytest.mark.parametrize("runner", ["uvx", "pip install", "pip install -U", "uv tool run"])
def test_the_package_of_others_is_recognized(runner: str) -> None:
    for name in ("hephaestus", "'hephaestus[flows]'", "hephaestus==1.0", "hephaestus build"):
        assert OTHERS_PACKAGE.search(f"then {runner} {name}")
    for name in ("hephaestus-build", "'hephaestus-build[flows]'", "--from hephaestus-build hephaestus"):
        assert not OTHERS_PACKAGE.search(f"then {runner} {name}")
