"""Types of the flows' parameters: the same text is taken here as on the command line.

Their JSON Schema has the server refuse certainly wrong values when a run is created.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Any

from prefect.runtime import flow_run
from pydantic import BeforeValidator, Field, WithJsonSchema

from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frame_search import frame_named
from hephaestus_build.core.frames import FRAME_ID_FORMS, parse_day
from hephaestus_build.core.plain_text import sanitize_text


def _any_case(pattern: str) -> str:
    """Return a pattern of upper case letters as one of letters of either case."""

    def both_cases(found: re.Match[str]) -> str:
        letters = found[0].strip("[]")
        return f"[{letters}{''.join(re.findall('[A-Z](?:-[A-Z])?', letters)).lower()}]"

    return re.sub(r"\[[^\]]*\]|[A-Z]", both_cases, pattern)


_IDS = "|".join(_any_case(form.plain_pattern) for form in FRAME_ID_FORMS)
#: A name begins with a letter, which no id does; whether a volcano has it, the run finds out.
_NAME = r"[^\W\d_][^\x00-\x1f\x7f-\x9f]{1,80}"
#: Pattern of frames for JSON Schema: an id in letters of either case, or a name.
FRAME_NAME_PATTERN = rf"^ *(?:{_IDS}|{_NAME}) *$"

FrameName = Annotated[
    str,
    Field(
        pattern=FRAME_NAME_PATTERN,
        description="Such as 124D_04854_171313 or 144A_SM_REUN_S6, or a volcano of one frame: Etna.",
    ),
]


def frame_run_name() -> str:
    """Return the name of a run of one frame: its id, whatever spelling its parameter has."""
    text = str(flow_run.parameters.get("frame", ""))
    try:
        return str(frame_named(text))
    except UsageError:
        return sanitize_text(text, 80)


def _parse_day_parameter(value: Any) -> Any:
    """Return the day of ``yyyymmdd``, which is a number in JSON; all else is for pydantic."""
    if isinstance(value, str) or type(value) is int:
        return parse_day(str(value))
    return value


#: A day as ``yyyymmdd`` or ``yyyy-mm-dd``.
Day = Annotated[
    date,
    BeforeValidator(_parse_day_parameter),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "format": "date", "pattern": "^[0-9]{4}-?[0-9]{2}-?[0-9]{2}$"},
                {"type": "integer", "minimum": 19700101, "maximum": 22611231},
            ]
        }
    ),
]
