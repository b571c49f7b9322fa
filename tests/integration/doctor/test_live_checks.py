"""Tests that the doctor sees each change of the archives, on simulated ones with faults."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta

import pytest

from archives import FRAME, settings_for
from hephaestus_build.core.frames import Frame
from hephaestus_build.core.grid import Grid
from hephaestus_build.doctor.atmosphere import check_atmosphere
from hephaestus_build.doctor.checkup import check_archives
from hephaestus_build.doctor.portal import PortalFindings, check_portal
from hephaestus_build.simulation.server import faults, raster_faults
from hephaestus_build.simulation.server.faults import Fault

PHASE, COHERENCE, METADATA = r"\.geo\.diff_pha\.tif$", r"\.geo\.cc\.tif$", r"metadata\.txt$"
LISTING, LINKS = r"/interferograms/$", r"/interferograms/\d{8}_\d{8}/?$"


@pytest.fixture
def settings(upstream, tmp_path):
    return settings_for(tmp_path / "data", retries=0, timeout=5)


def verdicts(checks) -> dict[str, str]:
    found = {check.name: check for check in checks if check.verdict != "ok"}
    assert all(check.next for check in found.values())
    return {name: check.verdict for name, check in found.items()}


def without(key: str) -> Fault:
    def cut(content: bytes) -> bytes:
        return b"\n".join(line for line in content.splitlines() if not line.startswith(key.encode()))

    return faults.replace_body(cut)


def test_an_archive_as_expected_has_no_finding(upstream, settings):
    upstream.clear_log()
    checks = list(check_archives(FRAME, settings))
    assert verdicts(checks) == {}
    assert [check.name for check in checks] == [
        "clock", "portal_listing", "portal_login", "portal_metadata", "portal_links", "portal_rasters",
        "portal_preview", "arco", "cds", "cds_licence",
    ]  # fmt: skip
    assert (
        len([entry for entry in upstream.log if entry.path.endswith(".tif") and entry.method == "GET"]) == 2
    )
    assert not settings.data_dir.exists()


PORTAL_FAULTS: dict[str, tuple[str, Fault, dict[str, str]]] = {
    "listing refused": (LISTING, faults.error_status(503), {"portal_listing": "failed"}),
    "listing is a web page": (LISTING, faults.serve_html(), {"portal_listing": "failed"}),
    "page of links refused": (
        LINKS, faults.error_status(500), {"portal_links": "warning", "portal_preview": "warning"},
    ),
    "page of links without links": (LINKS, faults.serve_html(), {"portal_links": "warning"}),
    "metadata gone": (METADATA, faults.error_status(404), {"portal_metadata": "failed"}),
    "metadata without time": (METADATA, without("center_time"), {"portal_metadata": "failed"}),
    "metadata without heading": (METADATA, without("heading"), {"portal_metadata": "warning"}),
    "phase of another type": (
        PHASE, faults.replace_body(raster_faults.cast_raster("int16")), {"portal_rasters": "failed"},
    ),
    "phase in another system": (
        PHASE, faults.replace_body(raster_faults.claim_crs()), {"portal_rasters": "failed"},
    ),
    "raster is a web page": (COHERENCE, faults.serve_html(), {"portal_rasters": "failed"}),
    "coherence on another grid": (
        COHERENCE, faults.replace_body(raster_faults.shift_raster(0.4, 0.4)), {"portal_rasters": "warning"},
    ),
    "preview empty": (r"\.png$", faults.empty_body(), {"portal_preview": "warning"}),
    "another time": (
        "LiCSAR_products/$", faults.claim_clock("Sun, 01 Nov 2020 10:00:00 GMT"), {"clock": "failed"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", PORTAL_FAULTS)
def test_what_has_changed_at_the_portal_is_named(upstream, settings, kind):
    pattern, fault, wrong = PORTAL_FAULTS[kind]
    upstream.faults.add(pattern, fault)
    assert verdicts(check_portal(FRAME, settings, PortalFindings())) == wrong


LOGINS = {
    "of another password": ("me:wrong@", "failed", "refuses the login in the address HEPHAESTUS_LICSAR_URL"),
    "none": ("", "failed", "asks for a login (HTTP 401)"),
    "right": ("me:secret@", "ok", "takes the login in the address HEPHAESTUS_LICSAR_URL"),
}


@pytest.mark.parametrize("kind", LOGINS)
def test_the_login_of_a_portal_that_asks_for_one_is_tried(upstream, settings, kind):
    login, verdict, said = LOGINS[kind]
    upstream.portal.login = ("me", "secret")
    address = upstream.licsar_url.replace("http://", f"http://{login}")
    checks = list(check_portal(FRAME, settings.model_copy(update={"licsar_url": address}), PortalFindings()))
    (found,) = [check for check in checks if check.name == "portal_login"]
    assert (found.verdict, bool(found.next)) == (verdict, verdict == "failed")
    assert said in found.detail
    assert not any(word in check.detail + check.next for check in checks for word in ("secret", "wrong"))
    if verdict == "ok":
        assert verdicts(checks) == {}


def test_a_portal_that_forbids_access_is_told_from_one_that_asks_for_a_login(upstream, settings):
    upstream.faults.add(LISTING, faults.error_status(403))
    found = {check.name: check for check in check_portal(FRAME, settings, PortalFindings())}
    assert found["portal_login"].verdict == found["portal_listing"].verdict == "failed"
    assert "refuses access (HTTP 403)" in found["portal_login"].detail


def test_a_portal_that_is_away_is_named_and_the_atmosphere_is_asked_all_the_same(settings):
    away = settings.model_copy(update={"licsar_url": "http://127.0.0.1:9/"})
    checks = list(check_archives(Frame("124D_04854_171313"), away))
    found = verdicts(checks)
    assert found["portal_listing"] == "failed"
    assert {"arco", "cds"} <= {check.name for check in checks}


def findings_of(upstream) -> PortalFindings:
    west, south, east, north = upstream.archive.world.scene(FRAME).grid.bounds
    grid = Grid(1, 1, (west + east) / 2, (south + north) / 2, 0.001, 0.001)
    return PortalFindings(upstream.archive.pairs(FRAME)[0].primary, timedelta(hours=6), grid)


def other_units(content: bytes) -> bytes:
    document = json.loads(content)
    text = json.dumps(document)
    return text.replace('"Pa"', '"hPa"').replace('"kg m**-2"', '"mm"').encode()


def no_versions(content: bytes) -> bytes:
    return content.replace(b"valid_time_stop", b"other_time_stop")


ERA5_FAULTS: dict[str, tuple[Callable, dict[str, str]]] = {
    "ARCO away": (
        lambda server: server.faults.add("/arco", faults.error_status(503)), {"arco": "failed"},
    ),
    "ARCO in other units": (
        lambda server: server.faults.add(r"/arco.*(json|zmetadata)$", faults.replace_body(other_units)),
        {"arco": "failed"},
    ),
    "ARCO without a variable": (
        lambda server: setattr(server.arco, "missing_variables", frozenset({"surface_pressure"})),
        {"arco": "failed"},
    ),
    "ARCO states no version": (
        lambda server: server.faults.add(r"/arco.*zmetadata$", faults.replace_body(no_versions)),
        {"arco": "warning"},
    ),
    "CDS without a variable": (
        lambda server: setattr(server.cds, "missing_variables", frozenset({"surface_pressure"})),
        {"cds": "failed", "cds_licence": "warning"},
    ),
    "CDS in other units": (
        lambda server: setattr(server.cds, "units", {"surface_pressure": "hPa"}),
        {"cds": "failed", "cds_licence": "warning"},
    ),
    "CDS with another version": (
        lambda server: setattr(server.cds, "stated_version", "0070"),
        {"cds": "failed", "cds_licence": "warning"},
    ),
    "CDS away": (
        lambda server: server.faults.add("/api/", faults.error_status(503)),
        {"cds": "failed", "cds_licence": "warning"},
    ),
    "key refused": (
        lambda server: server.faults.add("/api/", faults.error_status(401)),
        {"cds": "failed", "cds_licence": "warning"},
    ),
    "licence not accepted": (
        lambda server: setattr(server.cds, "licence_accepted", False),
        {"cds": "failed", "cds_licence": "failed"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ERA5_FAULTS)
def test_what_has_changed_at_the_sources_of_era5_is_named(upstream, settings, kind):
    change, wrong = ERA5_FAULTS[kind]
    change(upstream)
    checks = list(check_atmosphere(FRAME, settings, findings_of(upstream)))
    assert verdicts(checks) == wrong
    # the line says what is wrong, in its own words
    said = {"version": "version|expver", "units": "in .(mm|hPa)., not in", "variable": "surface_pressure"}
    for word, pattern in said.items():
        if word in kind:
            assert re.search(pattern, " ".join(check.detail for check in checks if check.verdict != "ok"))


def test_a_frame_of_unknown_place_has_no_atmosphere_to_ask_for(settings):
    assert verdicts(check_atmosphere(FRAME, settings, PortalFindings())) == {"era5": "warning"}
