"""Tests that pyproject.toml declares exactly the packages that are imported."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable

import pytest
from packaging.requirements import Requirement

from checkout import ROOT

PYPROJECT = (ROOT / "pyproject.toml").read_text()
PROJECT = tomllib.loads(PYPROJECT)["project"]
GROUPS = tomllib.loads(PYPROJECT)["dependency-groups"]

#: Distributions whose import name is not their own name with underscores.
IMPORTED_AS = {
    "markdown-it-py": "markdown_it",
    "pillow": "PIL",
    "netcdf4": "netCDF4",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
    "ecmwf-datastores-client": "ecmwf",
    "pystac-ext-insar": "pystac",  # pystac.extensions.insar
    "pystac-ext-processing": "pystac",
}
#: Packages used without an import by name, and their users.
USED_BY = {
    "pandas": "xarray: dates, tables",
    "rioxarray": "xarray: the accessor .rio of what open_cube returns",
    "dask": "xarray: the chunked arrays of open_cube",
    "cryptography": "distributed: the keys of clusters of this machine",
    "tensorboard": "lightning: the logger that writes its files",
}
#: Packages that `make test` and `make lint` use as commands, pytest plugins or types for mypy.
TOOLS = {
    "h5netcdf",  # an engine with which xarray writes netCDF
    "import-linter",
    "hatchling",  # started as a program
    "pytest-timeout",
    "pytest-xdist",
    "ruff",
    "mypy",
    "bandit",
    "pandas-stubs",
    "scipy-stubs",
    "pysocks",  # what requests needs for SOCKS proxies
}


def requirements(lines: Iterable[str]) -> dict[str, Requirement]:
    return {item.name.lower(): item for item in map(Requirement, lines)}


MAIN = requirements(PROJECT["dependencies"])
EXTRAS = {name: requirements(lines) for name, lines in PROJECT["optional-dependencies"].items()}
DEV = requirements(GROUPS["dev"])
BENCH = requirements(GROUPS["bench"])
#: Folders of code, with the extra that they need; what they may import beside the main dependencies.
FOLDERS = {
    "hephaestus_build": {**EXTRAS["cluster"], **EXTRAS["catalog"]},
    "flows": EXTRAS["flows"],
    # the bench compares with a library that `make bench-loader` installs
    "baselines": {**EXTRAS["baselines"], **BENCH},
}


def import_name(distribution: str) -> str:
    return IMPORTED_AS.get(distribution, distribution.replace("-", "_"))


def imports(folder: str) -> dict[str, str]:
    """Return the top-level names that the modules below a folder import, each with a module that does."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            for name in names:
                found.setdefault(name.partition(".")[0], str(path.relative_to(ROOT)))
    return {name: where for name, where in found.items() if name not in sys.stdlib_module_names}


def own_names() -> set[str]:
    """Return the import names of this project: its packages, and the modules of its tests."""
    packages = {path.parent.name for folder in FOLDERS for path in (ROOT / folder).rglob("__init__.py")}
    return packages | {path.stem for path in (ROOT / "tests").rglob("*.py")}


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_is_imported_is_declared(folder):
    declared = {import_name(name) for name in (*MAIN, *FOLDERS[folder])} | own_names()
    assert {name: where for name, where in imports(folder).items() if name not in declared} == {}


def test_what_the_tests_import_is_declared():
    everything = [*MAIN, *DEV, *(name for extra in EXTRAS.values() for name in extra)]
    declared = {import_name(name) for name in everything} | own_names()
    assert {name: where for name, where in imports("tests").items() if name not in declared} == {}


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_is_declared_is_used(folder):
    used = imports(folder)
    declared = {**(MAIN if folder == "hephaestus_build" else {}), **FOLDERS[folder]}
    assert [name for name in declared if import_name(name) not in used and name not in USED_BY] == []


def test_what_is_declared_for_the_tests_is_used():
    used = imports("tests")
    spare = [name for name in DEV if import_name(name) not in used and name not in TOOLS]
    assert [name for name in spare if not name.startswith("types-")] == []


def test_no_dependency_is_declared_twice():
    for extra in (*EXTRAS.values(), DEV, BENCH):
        assert extra.keys() & MAIN.keys() == set()


def test_every_dependency_has_a_lower_bound_and_an_upper_one_only_for_a_reason():
    assert PROJECT["requires-python"] == ">=3.11"
    for item in (*MAIN.values(), *(item for extra in EXTRAS.values() for item in extra.values())):
        operators = {part.operator for part in item.specifier}
        assert ">=" in operators, item
        if operators != {">="}:
            (line,) = re.findall(rf'^ +"{item.name}[^"]*",(.*)$', PYPROJECT, re.MULTILINE)
            assert line.strip().startswith("#"), f"{item}: the line says no reason"


def test_every_reader_of_other_projects_has_a_lower_bound_and_is_tried():
    tests = "".join(path.read_text() for path in (ROOT / "tests/integration/readers").glob("*.py"))
    for name, item in requirements(GROUPS["readers"]).items():
        assert [part.operator for part in item.specifier] == [">="], item
        assert f'import_reader("{name.removesuffix("-insar")}' in tests, item


def test_the_builder_imports_neither_prefect_nor_torch_and_needs_no_cluster():
    banned = {"prefect", "torch", "flows", "hephaestus_flows"}
    assert imports("hephaestus_build").keys() & banned == set()
    code = (
        "import pkgutil, sys\n"
        "from importlib import import_module\n"
        "for name in ('prefect', 'torch', 'lightning', 'timm', 'distributed'): sys.modules[name] = None\n"
        "import hephaestus_build\n"
        "for module in pkgutil.walk_packages(hephaestus_build.__path__, 'hephaestus_build.'):\n"
        "    if not module.name.endswith('__main__'): import_module(module.name)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize("words", [["frames", "etna"], ["status"], ["build", "--help"]])
def test_commands_that_read_no_image_load_no_xarray(words, tmp_path):
    code = (
        "import sys\n"
        "from hephaestus_build.cli import run_command_line\n"
        "try: run_command_line()\n"
        "finally: print('loaded', sorted({'xarray', 'dask', 'matplotlib'} & set(sys.modules)))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True, text=True, cwd=ROOT, env=os.environ | {"HEPHAESTUS_DATA_DIR": str(tmp_path)},
    )  # fmt: skip
    assert ended.stdout.splitlines()[-1] == "loaded []", ended.stderr


WITHOUT_PREFECT = "import runpy, sys; sys.modules['prefect'] = None; sys.argv[0] = '-m'; "


@pytest.mark.parametrize("module", ["hephaestus_flows.serve", "hephaestus_flows.build_frame"])
def test_a_command_of_the_flows_names_the_missing_extra_in_one_line(module):
    # as `python -m` begins, in a process that finds no Prefect
    code = f"{WITHOUT_PREFECT} runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == 1
    (line,) = ended.stderr.strip().splitlines()
    assert line == (
        "a flow needs prefect, which is not installed; `pip install 'hephaestus-build[flows]'` installs it "
        "(in a checkout: `make serve`)"
    )


def test_importing_the_flows_without_their_extra_names_it():
    code = "import sys; sys.modules['prefect'] = None; import hephaestus_flows"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("ModuleNotFoundError: a flow needs prefect")
    assert "pip install 'hephaestus-build[flows]'" in last


@pytest.mark.flows
def test_the_flow_that_trains_names_the_missing_extra(monkeypatch):
    pytest.importorskip("prefect")
    from hephaestus_flows.benchmark import benchmark

    monkeypatch.setattr("hephaestus_build.core.extras.find_spec", lambda name: None)
    ended = benchmark.fn()
    assert ended.is_failed()
    assert "needs torch" in ended.message
    assert "pip install 'hephaestus-build[baselines]'" in ended.message


def test_make_installs_every_extra_but_the_one_with_torch():
    recipe = (ROOT / "Makefile").read_text()
    found = re.search(r"^EXTRAS := ((?:.*\\\n)*.*)$", recipe, re.MULTILINE)
    assert found
    code = found[1].replace("\\\n", " ")
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert set(ended.stdout.strip().split(",")) == EXTRAS.keys() - {"baselines"}
