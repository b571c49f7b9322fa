"""Tests of files of jobs and `hephaestus apply` without Prefect; those with it are in test_flows.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from archives import FRAME, copied
from checkout import ROOT
from hephaestus_build.cli import apply as apply_command
from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frames import Frame
from hephaestus_build.operations.jobs import JobFile, check_cron, read_job_file

EXAMPLE = ROOT / "docs" / "examples" / "jobs.yaml"
GOOD = f"""jobs:
  once:
    frames: [{FRAME}]
    pairs: all
    simulated: true
  etna:
    volcanoes: [Etna]
    since: 20200101
    schedule: "7 */12 * * *"
"""

Call = Callable[..., tuple[int, str, str]]


def written(folder: Path, text: str) -> Path:
    file = folder / "jobs.yaml"
    file.write_text(text)
    return file


def test_the_schema_for_editors_is_that_of_the_model() -> None:
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **JobFile.model_json_schema()}
    file = ROOT / "schemas" / "jobs.json"
    assert json.loads(file.read_text()) == schema, f"write this to {file}: {json.dumps(schema, indent=1)}"


def test_jobs_name_frames_by_id_and_by_volcano(tmp_path: Path) -> None:
    jobs = read_job_file(written(tmp_path, GOOD)).jobs
    assert jobs["once"].find_frames() == [Frame(str(FRAME))]
    assert jobs["etna"].find_frames() == [Frame("124D_05291_081406")]
    wide = read_job_file(written(tmp_path, GOOD.replace("[Etna]", "[Galapagos, Etna]"))).jobs["etna"]
    assert len(wide.find_frames()) > 2
    assert {request.since for request in jobs["etna"].make_requests()} == {date(2020, 1, 1)}
    assert set(read_job_file(EXAMPLE).jobs) == {"benchmark", "etna"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("schedule", "shedule", "line 9: jobs.etna.shedule: unknown key (did you mean schedule?)"),
        ("pairs: all", "pairs: most", "line 4: jobs.once.pairs: it must be 'auto', 'annotated' or 'all'"),
        ("[Etna]", "Etna", "line 7: jobs.etna.volcanoes: it must be a list"),
        ("[Etna]", "['']", "line 7: jobs.etna.volcanoes.0: no published frame is of ''"),
        ("[Etna]", "[7]", "line 7: jobs.etna.volcanoes.0: it must be text"),
        ("20200101", "2020-13-01", "cannot be read (month must be in 1..12) in line 8"),
        ("20200101", "0x" + "f" * 5000, "line 8: jobs.etna.since: it is not a day"),
        ("pairs: all", "data_dir: ''", "line 4: jobs.once.data_dir: it names no folder"),
        ("pairs: all", 'data_dir: "a\\0"', "line 4: jobs.once.data_dir: it names no folder"),
        ('"7 ', '"70 ', "line 9: jobs.etna.schedule: '70' is no minute (0 to 59)"),
        ("[Etna]", "[Etna, Etnb]", "line 7: jobs.etna.volcanoes.1: no published frame is of 'Etnb'"),
        (str(FRAME), "124D_1", "line 3: jobs.once.frames.0: '124D_1' is not a frame id"),
        ("  once:", "  on ce:", "line 2: jobs.on ce: a name has"),
        ("20200101", "yesterday", "line 8: jobs.etna.since: 'yesterday' is not a day"),
        ("    volcanoes: [Etna]\n", "", "line 6: jobs.etna: name frames or volcanoes"),
        ("jobs:", "job:", "line 1: job: unknown key (did you mean jobs?)"),
        ("pairs: all", "data_dir: s3://a/b", "line 4: jobs.once.data_dir: data_dir is an address"),
        ("pairs: all", "pairs: [", "it is not YAML: expected"),
        ("pairs: all", "timezone: Mars/Base", "line 4: jobs.once.timezone: it is no time zone"),
        ("pairs: all", "at_a_time: 99", "line 4: jobs.once.at_a_time: "),
        (GOOD, "[1, 2]", "has no jobs: it needs the key jobs"),
        (GOOD, "", "has no jobs: it needs the key jobs"),
    ],
)
def test_what_is_wrong_is_named_by_line_and_key(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in GOOD
    with pytest.raises(UsageError) as raised:
        read_job_file(written(tmp_path, GOOD.replace(old, new, 1)))
    assert said in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    "text", ["* * * * *", "*/5 0-23/2 1,15 jan-mar mon-fri", "0 0 31 12 7", "7 */12 * * *"]
)
def test_schedules_of_cron_are_taken(text: str) -> None:
    assert check_cron(f" {text} ") == text


@pytest.mark.parametrize(
    "text",
    ["", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * foo *",
     "5-3 * * * *", "*/0 * * * *", "@daily", "* * * * 8", "*-5 * * * *", "1,, * * * *"],
)  # fmt: skip
def test_schedules_that_cron_would_refuse_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"fields|is no "):
        check_cron(text)


def test_a_dry_run_says_what_would_be_done_and_does_nothing(
    hephaestus: Call, upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEPHAESTUS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(apply_command, "check_extra", lambda *_: pytest.fail("asks for Prefect"))
    code, out, err = hephaestus("apply", str(written(tmp_path, GOOD)), "--dry-run")
    assert code == 0
    assert "as watch/etna" in out
    assert "once, now" in out
    assert "nothing was done" in err
    assert not upstream.log
    assert not (tmp_path / "data").exists()


def test_a_job_without_a_schedule_is_built_once(
    hephaestus: Call, upstream, whole_cube: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEPHAESTUS_DATA_DIR", str(copied(whole_cube, tmp_path / "data")))
    only = GOOD.partition("  etna:")[0]
    code, out, err = hephaestus("apply", str(written(tmp_path, only)))
    assert code in (0, 3), err
    assert f"{FRAME}: nothing new, 7 pairs" in out
    assert "once: 1 frame: 0 built, 1 unchanged" in err
    missing = only.replace(str(FRAME), f"{FRAME}, 198A_00001_000001")
    code, _, err = hephaestus("apply", str(written(tmp_path, missing)))
    assert code == 1
    assert "1 failed" in err


def test_without_prefect_a_schedule_is_one_line_before_anything_is_built(
    hephaestus: Call, upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEPHAESTUS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(
        "hephaestus_build.core.extras.find_spec", lambda name: None if name == "prefect" else object()
    )
    code, out, err = hephaestus("apply", str(written(tmp_path, GOOD)))
    assert (code, out) == (1, "")
    assert "a job with a schedule needs prefect" in err
    assert "hephaestus-build[flows]" in err
    assert not upstream.log
