"""Tests of the documentation: its Python code runs, and its commands and options exist."""

from __future__ import annotations

import contextlib
import re
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import typer.main

import toy_benchmark
import toy_cube
from annotation_files import good_file, tar_of
from checkout import ROOT
from doc_pages import blocks, hephaestus_arguments, pages, shell_commands
from hephaestus_build.cli import app

#: Blocks of Python that are marked as not run (`<!-- not run: why -->` before the fence), by page.
NOT_RUN: dict[str, int] = {"README.md": 1, "docs/architecture.md": 1, "docs/qgis.md": 1, "docs/readers.md": 4}
#: What is made smaller so that a block ends soon, by page.
SHORTENED = {"docs/training.md": (("num_workers=2", "num_workers=0"), ("range(10)", "range(1)"))}

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
    """Folder with all inputs of the examples: cubes, annotations, a split, an export."""
    folder = tmp_path_factory.mktemp("docs")
    work, data = folder / "work", folder / "work" / "data"
    pairs = ("20190604_20190616", "20190604_20190628", *toy_cube.PAIRS)
    with patch.object(toy_cube, "PAIRS", pairs):
        toy_cube.toy_cube(data / "simulated" / "cubes", pairs=pairs)
    toy_benchmark.toy_cubes(data / "cubes", frame="124D_04854_171313", secondaries=3)
    hawaii = {"frameID": "087D_07004_060904", "primary_date": "20180517", "secondary_date": "20180529"}
    tar_of(data / "annotations.tar.gz", {"1.json": good_file(**hawaii)})
    with contextlib.chdir(work):
        _run("splits", "write", "strict-temporal", "--cubes", "data/cubes", "--data-dir", "data")
        _run("export", "124D_04854_171313", "--to", "geotiff", "--out", "export/", "--data-dir", "data")
    return folder


def _run(*words: str) -> None:
    assert not typer.main.get_command(app)(list(words), standalone_mode=False)


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
    for block in blocks(page):
        if block.language == "python" and not block.not_run:
            code = block.code
            for shown, short in SHORTENED.get(page, ()):
                assert shown in code
                code = code.replace(shown, short)
            # errors name the line of the page
            exec(compile("\n" * (block.line - 1) + code, ROOT / page, "exec"), names)
    return names


@pytest.mark.parametrize("page", [page for page in PYTHON if page != "docs/training.md"])
@pytest.mark.usefixtures("work")
def test_python_on_a_page_runs(page: str) -> None:
    names = run_page(page)
    if "cube" in names:
        assert names["cube"].attrs["frame"] in (toy_cube.FRAME, "124D_04854_171313")


def test_the_loader_works_in_ones_own_training(work: Path) -> None:
    pytest.importorskip("torch")
    seen = run_page("docs/training.md")
    # a series of each kind, one of them with deformation
    assert seen["images"].shape == (2, 27, 512, 512)
    assert seen["images"].isfinite().all()
    assert sorted(seen["label"].tolist()) == [0, 1]
    assert seen["mask"].any((1, 2)).tolist() == seen["label"].bool().tolist()
    assert (work / "sample.png").stat().st_size > 10_000


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
    for page in pages():
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
