"""Tests of ``hephaestus doctor``: its lines, its exit code, and the file for a bug report."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

from typer.testing import CliRunner

from archives import FRAME
from hephaestus_build.cli import app
from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.simulation.server import faults

KEY, PASSWORD, TOKEN = "0b1c2d3e-secret-key", "hunter22", "tok-998877"


def doctor(*options: object) -> tuple[int, str, str]:
    """Run the command; return its exit code, its results and its errors."""
    result = CliRunner().invoke(app, ["doctor", *map(str, options)])
    if isinstance(result.exception, HephaestusError):
        return result.exception.exit_code, result.stdout, str(result.exception)
    return result.exit_code, result.stdout, result.stderr


def checks_of(text: str) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in json.loads(text)["checks"]}


def test_a_machine_in_order_is_one_line_each_and_zero(tmp_path, monkeypatch):
    monkeypatch.setenv("HEPHAESTUS_LICSAR_URL", "http://127.0.0.1:9/")  # nobody is asked
    code, out, err = doctor("--data-dir", tmp_path)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) == len(json.loads(doctor("--json", "--data-dir", tmp_path)[1])["checks"])
    assert all(line.split()[0] in ("ok", "warning") for line in lines)


def test_what_failed_is_one_and_said_with_the_next_step(tmp_path, monkeypatch):
    monkeypatch.setenv("HEPHAESTUS_ERA5", "cds")
    code, out, err = doctor("--data-dir", tmp_path)
    assert code == 1
    assert "1 of" in err
    assert "cds_key" in err
    (line,) = [line for line in out.splitlines() if line.startswith("failed")]
    assert "get a key at" in line


def test_wrong_settings_are_a_failed_check_and_the_others_are_made(tmp_path, monkeypatch):
    monkeypatch.setenv("HEPHAESTUS_CONECTIONS", "2")
    code, out, _ = doctor("--json", "--data-dir", tmp_path)
    assert code == 1
    checks = checks_of(out)
    assert checks["settings"]["verdict"] == "failed"
    assert "HEPHAESTUS_CONNECTIONS" in checks["settings"]["detail"]
    assert checks["free_space"]["verdict"]
    assert str(tmp_path) in checks["data_folder"]["detail"]


def test_a_frame_is_asked_for_only_with_live():
    assert doctor(FRAME)[0] == 2


def test_live_asks_the_archives_of_the_settings(upstream, tmp_path):
    options = ("--live", FRAME, "--json", "--data-dir", tmp_path)
    code, out, _ = doctor(*options)
    assert code == 0
    checks = checks_of(out)
    live = [check for name, check in checks.items() if name.startswith("portal_") or name in ("arco", "cds")]
    assert len(live) == 8
    assert {check["verdict"] for check in live} == {"ok"}
    assert "from the portal's" in checks["clock"]["detail"]
    upstream.faults.add("/interferograms/", faults.error_status(503))
    code, out, err = doctor(*options)
    assert code == 1
    assert checks_of(out)["portal_listing"]["verdict"] == "failed"
    assert "portal_listing" in err


def test_the_file_for_a_bug_report_holds_no_secret(tmp_path, monkeypatch):
    data = tmp_path / "home" / "data"
    data.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CDSAPI_KEY", KEY)
    monkeypatch.setenv("HEPHAESTUS_LICSAR_URL", f"http://me:{PASSWORD}@127.0.0.1:9/LiCSAR/?token={TOKEN}")
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:{PASSWORD}x@proxy.example:3128")
    run = {"frame": str(FRAME), "error": f"refused with {KEY} and {PASSWORD}, {TOKEN} in {data}"}
    (data / "runs.jsonl").write_text("".join(json.dumps({**run, "seconds": n}) + "\n" for n in range(50)))
    report = tmp_path / "report.tar.gz"
    doctor("--report", report, "--data-dir", data)
    with tarfile.open(report) as archive:
        contents = {Path(member.name).name: archive.extractfile(member).read() for member in archive}
    assert set(contents) == {"doctor.json", "versions.json", "settings.json", "runs.jsonl"}
    for secret in (KEY, PASSWORD, f"{PASSWORD}x", TOKEN, str(tmp_path / "home")):
        assert not any(secret.encode() in content for content in contents.values()), secret
    assert json.loads(contents["doctor.json"])["checks"]
    settings = json.loads(contents["settings.json"])
    assert settings["licsar_url"] == {"value": "http://127.0.0.1:9/LiCSAR/", "origin": "environment"}
    assert settings["timeout"]["origin"] == "default"
    runs = contents["runs.jsonl"].decode().splitlines()
    assert (len(runs), json.loads(runs[-1])["seconds"]) == (20, 49)
    assert json.loads(contents["versions.json"])["hephaestus-build"]


def test_a_report_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = doctor("--report", tmp_path / "file" / "report.tar.gz")
    assert code == 1
    assert err.count("\n") == 0
