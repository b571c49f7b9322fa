"""One check of the doctor, and what becomes of one that fails in an unexpected way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.plain_text import sanitize_text

Verdict = Literal["ok", "warning", "failed"]
_LONGEST = 1000


@dataclass(frozen=True)
class Check:
    """One thing that can be wrong.

    Attributes
    ----------
    name : str
        What was checked, such as ``free_space``.
    verdict : {"ok", "warning", "failed"}
        ``warning`` if it works in another way or may not last; ``failed`` if a build cannot be right.
    detail : str
        What was found, one line.
    next : str
        What to do; empty if nothing is to be done.
    """

    name: str
    verdict: Verdict
    detail: str
    next: str = ""

    def to_json(self) -> dict[str, str]:
        """Return the check as JSON values."""
        return {key: sanitize_text(value, _LONGEST) for key, value in asdict(self).items()}


def judge(name: str, fault: str, *, ok: str, next_step: str, verdict: Verdict = "failed") -> Check:
    """Return a check that is fine if `fault` is empty.

    Parameters
    ----------
    name : str
        What was checked.
    fault : str
        What is wrong; empty if nothing is.
    ok : str
        What was found if nothing is wrong.
    next_step : str
        What to do if something is.
    verdict : {"warning", "failed"}
        How bad it is.
    """
    return Check(name, verdict, fault, next_step) if fault else Check(name, "ok", ok)


def run_checks(parts: Iterable[tuple[str, Callable[[], Iterable[Check]]]]) -> Iterator[Check]:
    """Yield the checks of every part; one that raises is a failed check of its name, and the others go on."""
    for name, part in parts:
        try:
            yield from part()
        except HephaestusError as error:
            yield Check(name, "failed", str(error), "correct that and run the same command again")
        except Exception as error:
            what = f"it could not be checked ({type(error).__name__}: {error})"
            yield Check(name, "failed", what, "add the file of `hephaestus doctor --report` to a bug report")
