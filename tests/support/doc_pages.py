"""Parser of the documentation: pages, code blocks, and the command lines in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from checkout import ROOT

#: Comment before a Python block that tests cannot run, with the reason.
NOT_RUN = re.compile(r"<!-- not run: (?P<reason>[^\n]+?) -->\s*\Z")
_BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w-]*)[^\n]*\n(?P<code>.*?)^(?P=indent)```\s*$",
    re.MULTILINE | re.DOTALL,
)
_REDIRECTION = re.compile(r"\s\d?(?:>>?|<)\s*[^\s<]+")
#: Words that may precede a program: variables, crontab times, programs that start other programs.
_BEFORE = re.compile(r"\w+=.*|[\d*/,-]+|srun|time|exec")
#: Programs that run the package's script under the name of the package.
_RUNNERS = ("uvx", "podman run", "docker run")


@dataclass(frozen=True)
class Block:
    """A fenced code block.

    Attributes
    ----------
    line : int
        Line of the page, from 1, at which the code begins.
    language : str
        First word after the opening fence; empty if there is none.
    code : str
        Code without the indentation of the fence.
    not_run : str
        Reason that it cannot run, if the page states one; else empty.
    """

    line: int
    language: str
    code: str
    not_run: str = ""


def pages() -> list[str]:
    """Return the paths of README.md and of the pages in docs/, relative to the checkout."""
    found = [path.relative_to(ROOT) for path in (ROOT / "docs").rglob("*.md")]
    return ["README.md", *sorted(str(path) for path in found if "_build" not in path.parts)]


def blocks(page: str | Path) -> Iterator[Block]:
    """Yield the code blocks of a page, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        indent = found["indent"]
        lines = [line.removeprefix(indent) for line in found["code"].splitlines(keepends=True)]
        marker = NOT_RUN.search(text, 0, found.start())
        yield Block(
            line=text.count("\n", 0, found.start("code")) + 1,
            language=found["language"],
            code="".join(lines),
            not_run=marker["reason"] if marker else "",
        )


def shell_commands(code: str) -> Iterator[list[str]]:
    """Yield the words of every simple command in lines of a shell, a crontab or a systemd unit.

    Redirections and comments are dropped; brackets around optional words (``[--all]``) are removed.
    """
    for line in code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(
            _REDIRECTION.sub(" ", line.removeprefix("$ ")), posix=True, punctuation_chars="|&;"
        )
        lexer.whitespace_split = True
        words: list[str] = []
        try:
            for token in lexer:
                if set(token) <= set("|&;"):
                    yield words
                    words = []
                else:
                    words.append(token.removeprefix("[").removesuffix("]"))
        except ValueError:  # a quotation across several lines, which no hephaestus command has
            continue
        yield words


def hephaestus_arguments(code: str) -> Iterator[list[str]]:
    """Yield the arguments of every ``hephaestus`` command in a block."""
    for words in shell_commands(code):
        before = list(takewhile(_BEFORE.fullmatch, words))
        if words[:1] and words[0].startswith("ExecStart="):
            words, before = [words[0].removeprefix("ExecStart="), *words[1:]], []
        if " ".join(words).startswith(_RUNNERS) and "hephaestus-build" in words:
            yield words[words.index("hephaestus-build") + 1 :]
        elif len(words) > len(before) + 1 and Path(words[len(before)]).name == "hephaestus":
            yield words[len(before) + 1 :]
