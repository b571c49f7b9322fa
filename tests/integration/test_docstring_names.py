"""Docstrings name what is there: parameters, attributes, classes and functions of today."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from checkout import PACKAGES, ROOT

Documented = ast.Module | ast.ClassDef | ast.FunctionDef
FILES = sorted(path for package in PACKAGES for path in package.rglob("*.py"))
SECTIONS = ("Parameters", "Attributes", "Returns", "Yields", "Raises", "Warns", "Examples")
#: Words in types that are no names of this project.
OTHERS = {"Codec", "DEM", "None", "True", "False"}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def documented(path: Path) -> Iterator[tuple[Documented, str]]:
    for node in ast.walk(tree(path)):
        if isinstance(node, Documented) and (text := ast.get_docstring(node)):
            yield node, text


def section(text: str, name: str) -> str:
    found = re.search(rf"^{name}\n-+\n(.*?)(?=^\w+\n-+\n|\Z)", text, re.DOTALL | re.MULTILINE)
    return found[1] if found else ""


def described(text: str, name: str) -> list[str]:
    """Return the names that a section describes."""
    heads = [line.split(" : ")[0] for line in section(text, name).splitlines() if line[:1].strip()]
    return [word.strip().lstrip("*") for head in heads for word in head.split(",")]


@cache
def classes() -> dict[str, ast.ClassDef]:
    nodes = (node for path in FILES for node in ast.walk(tree(path)))
    return {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}


def members(node: ast.ClassDef, seen: tuple[str, ...] = ()) -> set[str]:
    """Return the names of a class: methods, fields, and attributes that it or a base sets on itself."""
    found: set[str] = set()
    for item in ast.walk(node):
        match item:
            case ast.FunctionDef(name=name, args=arguments):
                found |= {name, *(parameters(arguments) if name == "__init__" else ())}
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(value=ast.Name(id="self"), attr=name):
                found.add(name)
    for base in node.bases:
        name = getattr(base, "id", "")
        if name in classes() and name not in seen:
            found |= members(classes()[name], (*seen, name))
    return found


def parameters(arguments: ast.arguments) -> set[str]:
    every = [
        *arguments.posonlyargs,
        *arguments.args,
        *arguments.kwonlyargs,
        arguments.vararg,
        arguments.kwarg,
    ]
    return {item.arg for item in every if item is not None} - {"self", "cls"}


@cache
def names_in_use() -> set[str]:
    found = {path.stem for path in FILES} | {part for path in FILES for part in path.parts} | OTHERS
    for path in FILES:
        for node in ast.walk(tree(path)):
            match node:
                case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.alias(name=name):
                    found.add(name.rpartition(".")[2])
                case ast.Name(id=name) | ast.Attribute(attr=name):
                    found.add(name)
    return found


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_what_is_described_is_there_and_what_is_there_is_described(package: Path) -> None:
    wrong = []
    for path in (path for path in FILES if path.is_relative_to(package)):
        for node, text in documented(path):
            if isinstance(node, ast.FunctionDef) and (said := described(text, "Parameters")):
                wrong += [f"{path}: {node.name}: {name}" for name in {*said} ^ parameters(node.args)]
            elif isinstance(node, ast.ClassDef):
                said = [*described(text, "Parameters"), *described(text, "Attributes")]
                wrong += [f"{path}: {node.name}: {name}" for name in {*said} - members(node)]
    assert wrong == []


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_every_name_in_a_docstring_exists(package: Path) -> None:
    unknown = []
    for path in (path for path in FILES if path.is_relative_to(package)):
        for node, text in documented(path):
            kinds = [
                kind
                for name in SECTIONS
                for kind in re.findall(r"^[\w*, ]+ : (.+)$", section(text, name), re.M)
            ]
            raised = re.findall(r"^(\w+)$", section(text, "Raises"), re.M)
            words = re.findall(r"\b[A-Z]\w+\b", " ".join([*kinds, *raised]))
            roles = re.findall(r":(?:func|class|meth|attr|data|mod|exc):`~?([\w.]+)`", text)
            unknown += [
                f"{path.relative_to(ROOT)}: {getattr(node, 'name', 'module')}: {name}"
                for name in (*words, *(role.rpartition(".")[2] for role in roles))
                if name not in names_in_use() and not hasattr(__builtins__, name)
            ]
    assert unknown == []
