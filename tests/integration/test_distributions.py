"""What is uploaded to a package index: the wheel is whole, holds nothing else, and works on its own."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from checkout import ROOT
from hephaestus_build.cli import COMMANDS

NAMES = {"hephaestus_build", "hephaestus_flows", "hephaestus_baselines"}
FRAME = "198A_00210_131313"


def run(*words: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("HEPHAESTUS", "PYTHON"))
    }
    return subprocess.run(
        [str(word) for word in words], cwd=cwd, env={**kept, **environment}, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source distribution of the checkout, and the wheel that is built from it alone."""
    folder = tmp_path_factory.mktemp("dist")
    ended = run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=ROOT)
    assert ended.returncode == 0, ended.stderr
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    ended = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=source)
    assert ended.returncode == 0, ended.stderr
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def members(distributions: tuple[Path, Path]) -> set[str]:
    with zipfile.ZipFile(distributions[1]) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def installed(distributions: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel unpacked, as pip puts it there; libraries come from the tests' environment."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(distributions[1]) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def hephaestus(installed: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = (sys.executable, "-m", "hephaestus_build", *words)
        ended = run(*command, cwd=tmp_path, PYTHONPATH=str(installed))
        assert ended.returncode == 0, ended.stderr
        return ended

    return call


def test_the_wheel_has_no_top_level_name_of_others(members: set[str]) -> None:
    tops = {name.partition("/")[0] for name in members}
    assert {top for top in tops if not top.endswith(".dist-info")} == NAMES


def test_the_wheel_has_what_it_reads_and_nothing_for_developers(members: set[str]) -> None:
    for name in NAMES:
        assert f"{name}/py.typed" in members
    schemas = {path.name for path in (ROOT / "schemas").iterdir()}
    assert {
        name.removeprefix("hephaestus_build/_schemas/") for name in members if "/_schemas/" in name
    } == schemas
    presets = {path.name for path in (ROOT / "baselines/hephaestus_baselines/config/presets").glob("*.yaml")}
    assert len(presets) >= 3
    assert {name.rpartition("/")[2] for name in members if "/presets/" in name} == presets
    assert not [name for name in members if "/performance/" in name or "test" in name.rpartition("/")[2]]
    modules = {
        str(path.relative_to(ROOT / parent))
        for parent, package in (("", "hephaestus_build"), ("flows", "hephaestus_flows"))
        for path in (ROOT / parent / package).rglob("*.py")
        if "performance" not in path.parts
    }
    assert modules <= members


def test_the_source_distribution_has_the_tests_and_the_documents(distributions: tuple[Path, Path]) -> None:
    with tarfile.open(distributions[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "Makefile", "LICENSE", "tests/conftest.py", "docs/cube.md", "CHANGELOG.md"} <= names
    assert not [name for name in names if name.startswith(("data/", ".venv")) or "__pycache__" in name]


def test_the_commands_are_those_of_the_checkout(hephaestus, installed: Path, tmp_path: Path) -> None:
    where = "import hephaestus_build, hephaestus_baselines; print(hephaestus_build.__file__)"
    ended = run(sys.executable, "-c", where, cwd=tmp_path, PYTHONPATH=str(installed))
    assert ended.stdout.startswith(str(installed))
    listed = hephaestus("--help").stdout
    assert all(f"  {name} " in listed for name in COMMANDS)
    about = (next(installed.glob("*.dist-info")) / "entry_points.txt").read_text()
    assert {line.partition(" = ")[0] for line in about.splitlines()} >= {"hephaestus", "hephaestus-build"}


def test_every_command_explains_itself_without_the_checkout(installed: Path, tmp_path: Path) -> None:
    code = (
        "import sys, typer\n"
        "from typer.main import get_command\n"
        "from hephaestus_build.cli import COMMANDS, app\n"
        "group = get_command(app)\n"
        "for name in COMMANDS:\n"
        "    command = group.get_command(None, name)\n"
        "    for inner in getattr(command, 'commands', None) or {'': command}:\n"
        "        found = command.commands[inner] if inner else command\n"
        "        context = found.make_context(name, [], resilient_parsing=True)\n"
        "        print(name, inner, len(found.get_help(context)))\n"
    )
    ended = run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(installed))
    assert ended.returncode == 0, ended.stderr
    assert {line.split()[0] for line in ended.stdout.splitlines()} == set(COMMANDS)
    assert "benchmark run" in ended.stdout


def test_the_wheel_plans_builds_and_shows_the_embedded_sample(hephaestus, tmp_path: Path) -> None:
    assert FRAME in hephaestus("plan", FRAME).stdout
    built = hephaestus("build", "--simulated", "--limit", "1", "--no-quicklook")
    assert FRAME in built.stdout
    assert (tmp_path / f"data/simulated/cubes/{FRAME}.zarr/zarr.json").is_file()
    assert FRAME in hephaestus("inspect", FRAME).stdout
    assert "Vesuvius" in hephaestus("frames", "vesuvius").stdout
    assert "licsar_url" in hephaestus("settings").stdout
    assert hephaestus("--version").stdout.strip() == version("hephaestus-build")


@pytest.mark.parametrize(
    ("package", "library"),
    [
        ("hephaestus_build", "xarray"),
        ("hephaestus_flows", "prefect"),
        pytest.param("hephaestus_baselines", "torch", marks=pytest.mark.slow),
    ],
)
def test_every_module_of_the_wheel_is_imported_from_it(
    package: str, library: str, installed: Path, tmp_path: Path
) -> None:
    """So nothing in it needs what was left out, and nothing is taken from the checkout."""
    pytest.importorskip(library, reason="its extra is not installed")
    code = (
        "import pkgutil, sys\n"
        "from importlib import import_module\n"
        f"package = import_module({package!r})\n"
        "for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "    if not module.name.endswith('__main__'): import_module(module.name)\n"
        "for name, module in sys.modules.copy().items():\n"
        "    if name.startswith('hephaestus'): print(name, module.__file__)\n"
    )
    ended = run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(installed))
    assert ended.returncode == 0, ended.stderr
    places = dict(line.split(maxsplit=1) for line in ended.stdout.splitlines() if line.startswith("heph"))
    assert len(places) > 5
    assert {name: place for name, place in places.items() if not place.startswith(str(installed))} == {}


def test_the_wheel_has_the_benchmark_and_its_presets(installed: Path, tmp_path: Path) -> None:
    code = (
        "from hephaestus_baselines.config.run_config import preset_names, read_preset\n"
        "from hephaestus_build.cli import load_command\n"
        "from hephaestus_build.dataset.predictor import find_predictors\n"
        "print({name: len(read_preset(name).make_recipes()) for name in preset_names()})\n"
        "print(find_predictors(), load_command('benchmark').info.help)\n"
    )
    ended = run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(installed))
    assert ended.returncode == 0, ended.stderr
    presets, plugins = ended.stdout.splitlines()
    runs = ast.literal_eval(presets)
    assert runs.keys() == {
        "kinds", "kinds-small", "legacy", "paper", "paper-small", "probes", "recommended",
        "recommended-small", "small", "volcano-group",
    }  # fmt: skip
    assert 0 < runs["small"] < runs["paper"]
    assert plugins.startswith("('baselines',) Train and score models")


@pytest.mark.slow
def test_the_wheel_works_in_an_environment_of_its_own(
    distributions: tuple[Path, Path], tmp_path: Path
) -> None:
    """Needs a package index, and takes a minute."""
    uv = Path(sys.executable).with_name("uv")
    if not uv.exists():
        pytest.skip("uv is not in this environment: `make test` installs it")
    assert run(uv, "venv", "--python", sys.executable, "env", cwd=tmp_path).returncode == 0
    python = tmp_path / "env/bin/python"
    ended = run(uv, "pip", "install", "--python", python, distributions[1], cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    script = tmp_path / "env/bin/hephaestus-build"
    ended = run(script, "build", FRAME, "--limit", "2", "--pairs", "all", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    ended = run(script, "benchmark", "run", cwd=tmp_path)
    assert ended.returncode == 1
    assert "pip install 'hephaestus-build[baselines]'" in ended.stderr
