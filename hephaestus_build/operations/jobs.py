"""Files of jobs: what to build and how often, for those who keep their work under version control."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frame_search import find_frames, frame_named
from hephaestus_build.core.frames import Frame, parse_day
from hephaestus_build.core.machine.user_paths import local_path
from hephaestus_build.core.parsing import decode_utf8, describe_invalid_value, parse_yaml, read_bounded
from hephaestus_build.core.plain_text import sanitize_text
from hephaestus_build.core.settings import Era5Choice, PairChoice, Settings, load_settings
from hephaestus_build.pipeline.plan import BuildRequest

_MAX_BYTES = 1 << 20
#: Fields of a cron text: name, lowest and highest number, and names in place of numbers.
_CRON_FIELDS = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]),
    ("day of the week", 0, 7, ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
)
_CRON_PART = re.compile(r"(\*|\d{1,2}|[a-z]{3})(?:-(\d{1,2}|[a-z]{3}))?(?:/(\d{1,2}))?", re.ASCII)


def check_cron(text: str) -> str:
    """Return a cron text of five fields with single blanks.

    Raises
    ------
    ValueError
        If it has another form, or a number is out of range; the message names the field.

    Examples
    --------
    >>> check_cron(" 7  */12 * * mon-fri ")
    '7 */12 * * mon-fri'
    """
    fields = text.split()
    if len(fields) != len(_CRON_FIELDS):
        raise ValueError(
            'a schedule has five fields: minute, hour, day, month, weekday, such as "7 */12 * * *"'
        )
    for value, (name, lowest, highest, words) in zip(fields, _CRON_FIELDS, strict=True):
        for part in value.lower().split(","):
            match = _CRON_PART.fullmatch(part)
            ends = (
                [_cron_number(end, words, lowest) for end in (match[1], match[2]) if end] if match else [None]
            )
            known = [end for end in ends if end is not None]
            fits = len(known) == len(ends) and all(lowest <= end <= highest for end in known if end >= 0)
            if not (match and fits and known == sorted(known)) or match[3] in ("0", "00") or "*-" in part:
                raise ValueError(f"{sanitize_text(part, 40)!r} is no {name} ({lowest} to {highest})")
    return " ".join(fields)


def _cron_number(text: str, words: Sequence[str], lowest: int) -> int | None:
    """Return the number of an end of a range; -1 for any, None for an unknown word."""
    if text == "*":
        return -1
    if text.isdecimal():
        return int(text)
    return words.index(text) + lowest if text in words else None


def _check_frame(value: Any) -> Any:
    try:
        return frame_named(value).id if isinstance(value, str) else value
    except UsageError as error:
        raise ValueError(str(error)) from None


def _check_volcano(value: Any) -> Any:
    if isinstance(value, str) and not (value.strip() and find_frames(value[:200])):  # none would be all
        raise ValueError(
            f"no published frame is of {sanitize_text(value, 80)!r}; `hephaestus frames` lists them"
        )
    return value


def _check_day(value: Any) -> Any:
    if type(value) is int and value.bit_length() > 64:  # more digits than Python writes
        raise ValueError("it is not a day, such as 2019-06-04")
    return parse_day(str(value)) if isinstance(value, str) or type(value) is int else value


def _check_folder(value: Any) -> Any:
    if isinstance(value, str) and (not value.strip() or "\0" in value):
        raise ValueError("it names no folder")
    try:
        return local_path("data_dir", value)
    except UsageError as error:
        raise ValueError(str(error)) from None


def _check_timezone(value: Any) -> Any:
    try:
        ZoneInfo(str(value)[:80])
    except (KeyError, ValueError, OSError):
        raise ValueError("it is no time zone such as UTC or Europe/Rome") from None
    return value


class Job(BaseModel):
    """One job of a file: frames, how they are built, and how often."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    frames: tuple[Annotated[str, BeforeValidator(_check_frame)], ...] = Field(
        (), description="Frame ids, such as 124D_04854_171313, or volcanoes of one frame: Etna."
    )
    volcanoes: tuple[Annotated[str, BeforeValidator(_check_volcano)], ...] = Field(
        (),
        description="Volcanoes or places: all frames that `hephaestus frames NAME` finds among the "
        "published 38.",
    )
    pairs: PairChoice | None = Field(
        None, description="Pairs to build: annotated, all, or auto. Default: as in the settings."
    )
    since: Annotated[date, BeforeValidator(_check_day)] | None = Field(
        None, description="Leave out pairs that begin before this day, such as 2019-06-04."
    )
    era5: Era5Choice | None = Field(
        None, description="Source of ERA5: cds, arco, or auto. Default: as in the settings."
    )
    data_dir: Annotated[Path, BeforeValidator(_check_folder)] | None = Field(
        None,
        description="Folder of cubes/, the cache and the results. Default: as in the settings. Of a job with "
        "a schedule it must be one that flows may write to (setting data_roots).",
    )
    at_a_time: int = Field(2, ge=1, le=8, description="Frames at once; they share the connections.")
    simulated: bool = Field(False, description="Take the simulated cubes.")
    schedule: Annotated[str, BeforeValidator(lambda text: check_cron(str(text)))] | None = Field(
        None,
        description="When to look for what is new, as cron writes it: minute, hour, day, month, weekday. "
        "Without it, `hephaestus apply` builds once.",
        examples=["7 */12 * * *"],
    )
    timezone: Annotated[str, BeforeValidator(_check_timezone)] = Field(
        "UTC", description="Time zone of the schedule.", examples=["Europe/Rome"]
    )

    @model_validator(mode="after")
    def _names_frames(self) -> Job:
        if not self.frames and not self.volcanoes:
            raise ValueError("name frames or volcanoes")
        return self

    def find_frames(self) -> list[Frame]:
        """Return its frames, without repeats."""
        found = [Frame(name) for name in self.frames]
        found += [item.frame for name in self.volcanoes for item in find_frames(name)]
        return list(dict.fromkeys(found))

    def load_settings(self) -> Settings:
        """Return the settings of its builds."""
        settings = load_settings(data_dir=self.data_dir, era5=self.era5, pairs=self.pairs)
        return settings.for_simulated() if self.simulated else settings

    def make_requests(self) -> list[BuildRequest]:
        """Return what it builds."""
        settings = self.load_settings()
        return [
            BuildRequest(frame, settings.pairs, self.since, variables=settings.variables)
            for frame in self.find_frames()
        ]


class JobFile(BaseModel):
    """Jobs of `hephaestus apply`."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    jobs: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,79}$")], Job] = Field(
        min_length=1,
        max_length=2000,
        description="Jobs by name; one with a schedule is the deployment watch/NAME.",
    )
    work_pool: str = Field(
        "hephaestus",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,79}$",
        description="Work pool of Prefect whose workers run the jobs with a schedule.",
    )


def read_job_file(path: Path) -> JobFile:
    """Return the jobs of a YAML file.

    Raises
    ------
    UsageError
        If it cannot be read or something in it is wrong; the message names the line and the key.
    """
    try:
        text = decode_utf8(read_bounded(path, _MAX_BYTES))
        content = parse_yaml(text, limit=_MAX_BYTES)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: {reason}; write jobs as in docs/operating.md") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} has no jobs: it needs the key jobs, as in docs/operating.md")
    try:
        return JobFile.model_validate(content)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        # a mistyped key explains the one that is missing
        first = min(found, key=lambda item: item["type"] != "extra_forbidden")
        keys = [key for key in first["loc"] if key != "[key]"]
        known = (JobFile if len(keys) < 3 else Job).model_fields
        hint = ""
        if first["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(keys[-1]), known, n=1)
            hint = f" (did you mean {near[0]}?)" if near else f" (known: {', '.join(known)})"
        where = ".".join(str(key) for key in keys) or "the file"
        said = "unknown key" if hint else _describe_wrong(first)
        line = _line_of(text, keys)
        raise UsageError(f"{path}, line {line}: {sanitize_text(where, 200)}: {said}{hint}") from None


def _describe_wrong(found: Mapping[str, Any]) -> str:
    if found["type"] == "string_pattern_mismatch":
        return "a name has up to 80 letters, digits and _ . -, the first one a letter or a digit"
    return describe_invalid_value(found)


def _line_of(text: str, keys: Sequence[str | int]) -> int:
    """Return the line of a value in a YAML text, or of the nearest one around it."""
    node, line = yaml.compose(text, yaml.SafeLoader), 1
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            found = [pair for pair in node.value if pair[0].value == str(key)]
            if not found:
                break
            line, node = found[0][0].start_mark.line + 1, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line + 1
        else:
            break
    return line
