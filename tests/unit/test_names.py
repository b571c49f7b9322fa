"""Tests that each public name is defined in only one module of the source tree."""

from __future__ import annotations

import ast
from collections import defaultdict

from checkout import PACKAGES

#: Names defined in several modules, and where. Users type them as commands (`hephaestus build`): a command
#: or flow may be called like the library function that it calls, and like a command of another group.
#: Nothing else belongs here.
SHARED_WITH_COMMANDS = {
    "build": {"hephaestus_build.pipeline.build", "hephaestus_build.cli.build"},
    "pairs": {"hephaestus_build.api.pairs", "hephaestus_build.cli.pairs"},
    "plan": {"hephaestus_build.pipeline.build", "hephaestus_build.cli.plan", "hephaestus_baselines.cli.runs"},
    "repair": {"hephaestus_build.operations.repair", "hephaestus_build.cli.repair"},
    "watch": {
        "hephaestus_build.operations.batch",
        "hephaestus_build.cli.watch",
        "hephaestus_flows.build_many",
    },
}
#: Names that modules of many projects have: loggers and Typer applications.
CUSTOMARY = {"app", "log"}
#: Modules of commands and flows.
COMMAND_ROOMS = ("hephaestus_build.cli.", "hephaestus_baselines.cli.", "hephaestus_flows.")


def names_defined_by(node: ast.stmt) -> set[str]:
    """Return the names that a statement defines."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return {node.name}
    if not isinstance(node, ast.Assign | ast.AnnAssign):
        return set()
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    found = {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
    return {name for name in found if len(name) > 1} - CUSTOMARY


def modules_by_name() -> dict[str, set[str]]:
    """Return the modules that define each public name at their top, type variables left out."""
    found = defaultdict(set)
    for folder in PACKAGES:
        for path in folder.rglob("*.py"):
            module = ".".join(path.relative_to(folder.parent).with_suffix("").parts).removesuffix(".__init__")
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                for name in names_defined_by(node):
                    found[name].add(module)
    assert {"open_cube", "DataDirOption", "PAIR_STATES"} <= found.keys()
    return {name: modules for name, modules in found.items() if not name.startswith("_")}


def test_a_public_name_is_defined_in_one_module() -> None:
    shared = {name: modules for name, modules in modules_by_name().items() if len(modules) > 1}
    wrong = []
    for name in sorted({*shared, *SHARED_WITH_COMMANDS}):
        found, allowed = shared.get(name, set()), SHARED_WITH_COMMANDS.get(name, set())
        if found != allowed:
            wrong.append(f"{name} in {sorted(found)}, allowed: {sorted(allowed) or 'one module'}")
    assert not wrong, "\n".join(wrong)


def test_only_commands_and_flows_share_a_name_with_another_module() -> None:
    for name, modules in SHARED_WITH_COMMANDS.items():
        elsewhere = [module for module in modules if not f"{module}.".startswith(COMMAND_ROOMS)]
        assert len(elsewhere) <= 1, name
