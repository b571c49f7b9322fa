"""Tests of the LiCSAR client over HTTP, against portals in all layouts."""

from __future__ import annotations

import shutil
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from hephaestus_build.core.era5_grid import nearest_era5_hour
from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.core.provenance import Outcome
from hephaestus_build.core.settings import Settings
from hephaestus_build.simulation.server import faults
from hephaestus_build.simulation.server.archive_server import ArchiveServer
from hephaestus_build.simulation.server.archive_state import SimulatedArchive
from hephaestus_build.simulation.server.http_server import HttpRequest, HttpResponse, LoopbackServer
from hephaestus_build.sources.interferograms import PreviewSize
from hephaestus_build.sources.licsar.acquisition import parse_geometry
from hephaestus_build.sources.licsar.archive_addresses import CEDA_URL, ArchiveAddresses
from hephaestus_build.sources.licsar.portal import LicsarPortal
from licsar_files import GRID, autoindex, coherence, phase, write_tif

FRAME = Frame("106A_09048_000909")
PAIRS = [Pair.parse(name) for name in ("20240106_20240118", "20240106_20240130", "20240118_20240130")]
METADATA = "master=20201210\ncenter_time=0:26:14.884940\nheading=-12.019061\nunknown_key=1\n"


def png(width: int, height: int, colour: int = 3) -> bytes:
    """Return a PNG that is valid except for its pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The frame's files as they lie under ``<track>/<frame>/``."""
    folder = tmp_path_factory.mktemp("tree")
    for number, pair in enumerate(PAIRS):
        place = folder / "interferograms" / pair.name
        write_tif(place / f"{pair}.geo.diff_pha.tif", phase(seed=number))
        write_tif(place / f"{pair}.geo.cc.tif", coherence(seed=number))
        (place / f"{pair}.geo.diff.png").write_bytes(png(19, 14))
    heights = np.linspace(0, 1700, GRID.width * GRID.height, dtype=np.float32).reshape(GRID.shape)
    write_tif(folder / "metadata" / f"{FRAME}.geo.hgt.tif", heights)
    (folder / "metadata" / "metadata.txt").write_text(METADATA)
    return folder


HTML = {"Content-Type": "text/html;charset=UTF-8"}


class Old:
    """Portal layout until 2025: folders only."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree

    def __call__(self, request: HttpRequest) -> HttpResponse | None:
        base = f"/LiCSAR_products/{FRAME.track}/{FRAME}/"
        if not request.path.startswith(base):
            return None
        path = self.tree / request.path.removeprefix(base)
        if not path.is_dir():
            return HttpResponse(body=path)
        if not request.path.endswith("/"):
            return HttpResponse(301, b"", {"Location": request.path + "/"})
        names = sorted(item.name + ("/" if item.is_dir() else "") for item in path.iterdir())
        return HttpResponse(200, autoindex(names).encode(), HTML)


class New(Old):
    """Portal layout since 2025: a page of links per pair, with files elsewhere."""

    def __init__(self, tree: Path) -> None:
        super().__init__(tree)
        self.elsewhere = "/neodc/comet/data/licsar_products"
        self.unlisted: set[str] = set()

    def __call__(self, request: HttpRequest) -> HttpResponse | None:
        if request.path.startswith(self.elsewhere):
            pair, name = request.path.split("/")[-2:]
            return HttpResponse(body=self.tree / "interferograms" / pair / name)
        base = f"/LiCSAR_products/{FRAME.track}/{FRAME}/"
        rest = request.path.removeprefix(base)
        if rest == "interferograms/":
            names = sorted(item.name for item in (self.tree / rest).iterdir())
            return HttpResponse(200, autoindex(names).encode(), HTML)
        if rest.startswith("metadata/"):
            return super().__call__(request)
        if (folder := self.tree / rest).is_dir() and not rest.endswith("/"):
            there = (
                request.base_url.replace("127.0.0.1", "localhost") + f"{self.elsewhere}/{FRAME.track}/{FRAME}"
            )
            files = [item.name for item in folder.iterdir() if item.name not in self.unlisted]
            lines = [f"<a href='{there}/{folder.name}/{name}'>{name}</a><br />\n" for name in sorted(files)]
            return HttpResponse(200, "".join(lines).encode(), {"Content-Type": "text/plain"})
        return None


@contextmanager
def opened(app: Any, tmp_path: Path, **options: Any) -> Iterator[tuple[LicsarPortal, LoopbackServer]]:
    with LoopbackServer([app]) as server:
        given = {"cache_dir": tmp_path / "cache", "timeout": 15, "retries": 1, **options}
        with LicsarPortal(Settings(licsar_url=server.base_url + "/LiCSAR_products", **given)) as portal:
            yield portal, server


# --- both shapes of the portal -------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [Old, New])
def test_a_frame_is_read_from_either_portal(tree, tmp_path, shape):
    with opened(shape(tree), tmp_path) as (portal, _):
        listing = portal.listing(FRAME)
        assert [item.pair for item in listing.pairs] == PAIRS
        assert [item.modified for item in listing.pairs] == [f"2024-02-1{n} 10:2{n}" for n in range(3)]
        assert listing.ignored == ()
        assert portal.metadata(FRAME).center_time == timedelta(minutes=26, seconds=14.88494)
        assert portal.metadata(FRAME).fields["unknown_key"] == "1"
        receipt, dem = portal.dem(FRAME)
        assert dem is not None
        assert (receipt.product, dem.values.max()) == (f"{FRAME}.geo.hgt.tif", 1700)
        for number, pair in enumerate(PAIRS):
            receipt, raster = portal.phase(FRAME, pair)
            assert (receipt.outcome, receipt.product) == (Outcome.DOWNLOADED, f"{pair}.geo.diff_pha.tif")
            assert raster is not None
            assert raster.values.tobytes() == phase(seed=number).tobytes()
            assert raster.grid.same_as(GRID, 1e-6)
            receipt, raster = portal.coherence(FRAME, pair)
            assert raster is not None
            np.testing.assert_array_equal(raster.values, coherence(seed=number))
        assert portal.preview(FRAME, pair)[1] == PreviewSize(19, 14, "P")


@pytest.mark.parametrize(("shape", "extra"), [(Old, 0), (New, 1)])
def test_no_request_is_wasted(tree, tmp_path, shape, extra):
    """One request per product, and one more per pair if only its page has the addresses."""
    with opened(shape(tree), tmp_path) as (portal, server):
        portal.listing(FRAME)
        with ThreadPoolExecutor(4) as pool:
            jobs = [
                pool.submit(get, FRAME, pair) for pair in PAIRS for get in (portal.phase, portal.coherence)
            ]
            assert all(job.result()[0].ok for job in jobs)
        portal.close()
        assert len(server.log) == 1 + len(PAIRS) * (2 + extra)
        assert all(entry.status == 200 for entry in server.log)


@pytest.mark.parametrize("shape", [Old, New])
def test_without_a_listing_the_shape_is_found_out_once(tree, tmp_path, shape):
    with opened(shape(tree), tmp_path) as (portal, server):
        for pair in PAIRS:
            assert portal.phase(FRAME, pair)[0].ok
        portal.close()
        assert sum(entry.status == 404 for entry in server.log) == (shape is New)


def test_the_storage_may_move_in_the_middle(tree, tmp_path):
    """Folders become link files between two products, and the link files then lead elsewhere."""
    old, new = Old(tree), New(tree)
    shape: list[Callable[[HttpRequest], HttpResponse | None]] = [old]
    with opened(lambda request: shape[0](request), tmp_path) as (portal, _):
        portal.listing(FRAME)
        assert portal.phase(FRAME, PAIRS[0])[0].ok
        shape[0] = new
        assert portal.coherence(FRAME, PAIRS[0])[0].ok
        new.elsewhere = "/moved"
        assert portal.preview(FRAME, PAIRS[0])[0].outcome is Outcome.ABSENT  # by the earlier links
        assert portal.preview(FRAME, PAIRS[0])[0].ok
        shape[0] = old
        assert portal.phase(FRAME, PAIRS[1])[0].ok


def test_a_plain_file_server_will_do_for_the_real_frame(shared_data, tmp_path):
    real = shared_data / "licsar" / str(FRAME)
    served = tmp_path / "served" / "106" / str(FRAME)
    served.parent.mkdir(parents=True)
    served.symlink_to(real)
    paths: list[str] = []

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- its base class names it so
            """Log nothing."""

        def log_request(self, *args: Any) -> None:
            paths.append(self.path)

    handler = partial(Quiet, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            for slash in ("", "/"):
                url = f"http://127.0.0.1:{server.server_address[1]}{slash}"
                with LicsarPortal(Settings(licsar_url=url, cache_dir=tmp_path / "cache")) as portal:
                    listing = portal.listing(FRAME)
                    assert len(listing.pairs) == 6
                    assert {item.modified for item in listing.pairs} == {None}
                    receipt, dem = portal.dem(FRAME)
                    assert (receipt.outcome, dem) == (Outcome.ABSENT, None)
                    assert portal.metadata(FRAME).center_time == timedelta(minutes=26, seconds=14.88494)
                    pair = listing.pairs[0].pair
                    for get, kind in ((portal.phase, "diff_pha"), (portal.coherence, "cc")):
                        receipt, raster = get(FRAME, pair)
                        with rasterio.open(real / "interferograms" / pair.name / receipt.product) as dataset:
                            expected = dataset.read(1)
                        assert raster is not None
                        assert raster.values.tobytes() == expected.tobytes()
                        assert kind in receipt.url
                    assert receipt.outcome is (Outcome.UNCHANGED if slash else Outcome.DOWNLOADED)
                    receipt, size = portal.preview(FRAME, pair)
                    assert size == PreviewSize(552, 574, "P")
        finally:
            server.shutdown()
            thread.join()
    # listing, hgt, metadata, phase, coherence, preview; twice
    assert len(paths) == 12


@pytest.fixture(scope="module")
def archive() -> Iterator[SimulatedArchive]:
    archive = SimulatedArchive(seed=0, size="small")
    yield archive
    archive.close()


@pytest.mark.parametrize(("layout", "style"), [("directories", "pre"), ("links", "table"), ("moved", "pre")])
def test_the_simulated_archive_is_read_like_the_real_one(archive, tmp_path, layout, style):
    archive.listing = style
    archive.layout = "directories" if layout == "directories" else "links"
    if layout == "moved":
        archive.move_storage()
    with ArchiveServer(archive) as server:
        with LicsarPortal(Settings(licsar_url=server.licsar_url, cache_dir=tmp_path)) as portal:
            for name in list(archive.world.frames)[:1]:
                frame = Frame(name)
                listing = portal.listing(frame)
                assert [item.pair for item in listing.pairs] == list(archive.pairs(name))
                assert portal.dem(frame)[0].ok
                for pair in (listing.pairs[0].pair, listing.pairs[-1].pair):
                    assert portal.phase(frame, pair)[0].ok
                    assert portal.coherence(frame, pair)[0].ok
                day = pair.primary
                for variable, place in (("unwrapped_phase", pair), ("look_up", None), ("gacos_delay", day)):
                    assert portal.optional_raster(frame, variable, place)[0].ok
                receipt, delay = portal.optional_raster(frame, "icams_delay", day)
                assert receipt.product == f"{day:%Y%m%d}.icams.sltd.geo.tif"
                assert portal.probe_product(frame, day, receipt.product).ok
                hour = nearest_era5_hour(day, archive.world.scene(name).spec.center_time)
                truth = archive.world.scene(name).slant_delay(day, hour)
                np.testing.assert_array_equal(delay.values, truth)
            first, _ = portal.phase(frame, pair)
            archive.reprocess(frame, pair)
            second, _ = portal.phase(frame, pair)
        assert (first.outcome, second.outcome) == (Outcome.UNCHANGED, Outcome.DOWNLOADED)
        assert first.digest != second.digest
        assert all(entry.status in (200, 304) for entry in server.log)


# --- mirrors -------------------------------------------------------------------------------------------


def test_the_public_twin_and_the_mirror_are_the_last_resorts(tree, tmp_path):
    def app(request: HttpRequest) -> HttpResponse | None:
        name = request.path.rpartition("/")[2]
        pair = name.split(".")[0]
        if request.path == f"/LiCSAR_products.public/106/{FRAME}/interferograms/{pair}/{pair}.geo.cc.tif":
            return HttpResponse(body=tree / "interferograms" / pair / name)
        if request.path == f"/mirror/106/{FRAME}/{pair}/{pair}.geo.diff_pha.tif":
            return HttpResponse(body=tree / "interferograms" / pair / name)
        if request.path == f"/mirror/106/{FRAME}/metadata/metadata.txt":
            return HttpResponse(body=tree / "metadata" / name)
        if request.path == f"/mirror/106/{FRAME}/":
            return HttpResponse(200, autoindex(["epochs/", "metadata/", f"{PAIRS[0]}/"]).encode(), HTML)
        return None

    with LoopbackServer([app]) as server:
        places = {
            "licsar_url": f"{server.base_url}/LiCSAR_products",
            "licsar_mirror_url": f"{server.base_url}/mirror",
        }
        with LicsarPortal(Settings(cache_dir=tmp_path, **places)) as portal:
            assert "/LiCSAR_products.public/" in portal.coherence(FRAME, PAIRS[0])[0].url
            assert "/mirror/" in portal.phase(FRAME, PAIRS[0])[0].url
            assert portal.phase(FRAME, PAIRS[1])[0].ok
            assert portal.phase(FRAME, Pair.parse("20200101_20200113"))[0].outcome is Outcome.ABSENT
            assert [item.pair for item in portal.listing(FRAME).pairs] == PAIRS[:1]
            assert portal.metadata(FRAME).fields["master"] == "20201210"
            server.clear_log()
            shutil.rmtree(tmp_path)
            assert portal.phase(FRAME, PAIRS[0])[0].ok  # only the mirror lists it: requested there first
            portal.close()
            assert len(server.log) == 1


def test_only_the_real_portal_brings_the_ceda_archive_with_it(tmp_path):
    pair = PAIRS[0]

    def addresses(**options: Any) -> list[str]:
        with LicsarPortal(Settings(cache_dir=tmp_path, timeout=0.2, retries=0, **options)) as portal:
            portal.client.get_text = lambda url, **_: (_ for _ in ()).throw(AssertionError(url))  # type: ignore[method-assign]
            from hephaestus_build.download.small_response import SmallResponse

            portal.search.fetch_links = lambda *_: (SmallResponse(Outcome.ABSENT, ""), {})  # type: ignore[method-assign]
            frame = Frame("005A_07021_131313")
            return list(portal.search.candidates(frame, pair, "x.tif"))

    inside = f"005A_07021_131313/interferograms/{pair}/x.tif"
    base = "https://gws-access.jasmin.ac.uk/public/nceo_geohazards/LiCSAR_products"
    assert addresses() == [
        f"{base}/5/{inside}",
        f"{base}.public/5/{inside}",
        f"{CEDA_URL}05/005A_07021_131313/{pair}/x.tif",
    ]
    assert addresses(licsar_url="http://127.0.0.1:1/here/") == [f"http://127.0.0.1:1/here/5/{inside}"]


@pytest.mark.parametrize(
    ("base", "url", "trusted"),
    [
        ("https://gws-access.jasmin.ac.uk/LiCSAR_products/", "https://data.ceda.ac.uk/neodc/x.tif", True),
        ("https://gws-access.jasmin.ac.uk/LiCSAR_products/", "http://gws-access.ceda.ac.uk/x.tif", True),
        (
            "https://gws-access.jasmin.ac.uk/LiCSAR_products/",
            "https://jasmin.ac.uk.evil.example/x.tif",
            False,
        ),
        ("https://gws-access.jasmin.ac.uk/LiCSAR_products/", "https://evil.example/x.tif", False),
        (
            "https://gws-access.jasmin.ac.uk/LiCSAR_products/",
            "https://evil.example@jasmin.ac.uk.x/x.tif",
            False,
        ),
        ("https://gws-access.jasmin.ac.uk/LiCSAR_products/", "http://127.0.0.1/x.tif", False),
        ("https://gws-access.jasmin.ac.uk/LiCSAR_products/", "file:///etc/passwd", False),
        ("https://gws-access.jasmin.ac.uk/LiCSAR_products/", "http://[::1/x", False),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:9000/x.tif", True),
        ("http://127.0.0.1:8000/", "http://localhost:9000/x.tif", True),
        ("http://127.0.0.1:8000/", "http://[::1]:9000/x.tif", True),
        ("http://127.0.0.1:8000/", "http://169.254.169.254/x.tif", False),
        ("http://archive.example/licsar", "http://archive.example:8080/x.tif", True),
    ],
)
def test_only_the_archives_own_hosts_are_followed(base, url, trusted):
    assert ArchiveAddresses(Settings(licsar_url=base)).is_trusted_url(url) is trusted


def test_the_catalogue_of_ceda_is_asked_at_its_file_server():
    addresses = ArchiveAddresses(Settings(licsar_url="https://me:secret@host.example/x"))
    link = "https://data.ceda.ac.uk/neodc/comet/data/licsar_products/124/f/p/p.geo.cc.tif"
    assert addresses.file_url(link) == link.replace("data.", "dap.")
    assert addresses.file_url("https://host.example/x/a.tif") == "https://me:secret@host.example/x/a.tif"


def test_a_portal_behind_a_password_keeps_it_to_itself(tree, tmp_path):
    def guarded(request: HttpRequest) -> HttpResponse | None:
        if "authorization" not in request.headers:
            return HttpResponse(401, b"")
        return Old(tree)(request)

    with LoopbackServer([guarded]) as server:
        url = server.base_url.replace("//", "//me:secret@") + "/LiCSAR_products"
        with LicsarPortal(Settings(licsar_url=url, cache_dir=tmp_path)) as portal:
            listing = portal.listing(FRAME)
            receipt, _ = portal.phase(FRAME, PAIRS[0])
            _, links = portal.search.fetch_links(FRAME, PAIRS[0])
            assert receipt.ok
            assert all("me:secret@" in link for link in links.values())
        with LicsarPortal(Settings(licsar_url=url.replace("me:secret@", ""), cache_dir=tmp_path)) as portal:
            with pytest.raises(HephaestusError, match=r"refuses its listing .*401") as caught:
                portal.listing(FRAME)
    assert "secret" not in f"{listing.url}{receipt}{caught.value}"
    for path in tmp_path.rglob("*.json"):
        assert "secret" not in path.read_text()


# --- outcomes ------------------------------------------------------------------------------------------


def test_no_listing_is_an_error_that_says_what_to_do(tree, tmp_path):
    app: list[Callable[[HttpRequest], HttpResponse | None]] = [lambda request: None]
    with opened(lambda request: app[0](request), tmp_path) as (portal, server):
        for answer, words in (
            (None, "no such frame .*404.*check its id"),
            (HttpResponse(403, b""), "refuses"),
            (HttpResponse(503, b""), "gives no listing .*503.*check the network"),
            (
                HttpResponse(200, faults.MAINTENANCE_PAGE, HTML),
                "listing cannot be read .*not a directory listing",
            ),
            (HttpResponse(200, b"", HTML), "listing cannot be read"),
        ):
            app[0] = lambda request, answer=answer: answer
            with pytest.raises(HephaestusError, match=words) as caught:
                portal.listing(FRAME)
            message = str(caught.value)
            assert str(FRAME) in message
            assert f"{server.base_url}/LiCSAR_products/106/{FRAME}/interferograms/" in message
            assert "\n" not in message
    with pytest.raises(HephaestusError, match="refuses connections"):
        portal.listing(FRAME)
    assert portal.phase(FRAME, PAIRS[0])[0].outcome is Outcome.UNREACHABLE


@pytest.mark.parametrize("url", ["", "gws-access.jasmin.ac.uk", "ftp://x/", "http://", "http://[::1/"])
def test_an_address_that_is_none_is_wrong_usage(url, tmp_path):
    with pytest.raises(UsageError, match="HEPHAESTUS_LICSAR_URL"):
        LicsarPortal(Settings(licsar_url=url, cache_dir=tmp_path))


@pytest.mark.parametrize("shape", [Old, New])
@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (faults.error_status(404), Outcome.ABSENT),
        (faults.error_status(403), Outcome.REFUSED),
        (faults.error_status(503), Outcome.UNREACHABLE),
        (faults.reset_connection(), Outcome.UNREACHABLE),
        (faults.serve_html(), Outcome.CORRUPT),
        (faults.empty_body(), Outcome.CORRUPT),
        (faults.truncate_body(), Outcome.CORRUPT),
        (faults.claim_length(99_999), Outcome.CORRUPT),
    ],
    ids=["404", "403", "503", "reset", "HTML", "empty", "truncated", "wrong length"],
)
def test_a_bad_product_is_named_and_the_next_one_is_fetched(tree, tmp_path, shape, fault, outcome):
    with opened(shape(tree), tmp_path) as (portal, server):
        portal.listing(FRAME)
        server.faults.add(rf"{PAIRS[0]}\.geo\.diff_pha", fault)
        receipt, raster = portal.phase(FRAME, PAIRS[0])
        assert (receipt.outcome, raster) == (outcome, None)
        assert receipt.detail
        assert receipt.product in receipt.url or outcome is Outcome.ABSENT
        assert portal.phase(FRAME, PAIRS[1])[0].ok
        server.faults.clear()
        assert portal.phase(FRAME, PAIRS[0])[0].ok


def test_a_raster_that_lies_is_corrupt(tree, tmp_path):
    bad = write_tif(tmp_path / "bad.tif", np.zeros(GRID.shape, np.float32)).read_bytes()
    wrong = write_tif(tmp_path / "wrong.tif", phase(), crs="EPSG:32615").read_bytes()
    with opened(Old(tree), tmp_path) as (portal, server):
        for content, words in ((bad, "every pixel is 0"), (wrong, "EPSG:32615")):
            rule = server.faults.add("diff_pha", faults.replace_body(content))
            receipt, _ = portal.phase(FRAME, PAIRS[0])
            assert receipt.outcome is Outcome.CORRUPT
            assert words in receipt.detail
            server.faults.remove(rule)
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_a_page_of_links_that_cannot_be_read_is_not_an_absence(tree, tmp_path):
    with opened(New(tree), tmp_path) as (portal, server):
        portal.listing(FRAME)
        rule = server.faults.add(rf"interferograms/{PAIRS[0]}$", faults.error_status(503))
        receipt, _ = portal.phase(FRAME, PAIRS[0])
        assert (receipt.outcome, receipt.detail[:8]) == (Outcome.UNREACHABLE, "HTTP 503")
        server.faults.remove(rule)
        assert portal.phase(FRAME, PAIRS[0])[0].ok


def test_a_pair_whose_page_lacks_a_product_lacks_it(tree, tmp_path):
    portal_app = New(tree)
    portal_app.unlisted = {f"{PAIRS[0]}.geo.diff_pha.tif"}
    with opened(portal_app, tmp_path) as (portal, _):
        portal.listing(FRAME)
        receipt, _ = portal.phase(FRAME, PAIRS[0])
        assert receipt.outcome is Outcome.ABSENT
        assert receipt.detail == "not among the files there"
        assert receipt.url.endswith(f"interferograms/{PAIRS[0]}")


def test_a_file_replaced_in_place_is_noticed_and_an_old_copy_costs_no_download(tree, tmp_path):
    copy = tmp_path / "tree"
    shutil.copytree(tree, copy)
    with opened(Old(copy), tmp_path) as (portal, server):
        first, _ = portal.phase(FRAME, PAIRS[0])
        again, raster = portal.phase(FRAME, PAIRS[0])
        assert (again.outcome, again.digest) == (Outcome.UNCHANGED, first.digest)
        assert raster is not None
        write_tif(copy / "interferograms" / PAIRS[0].name / first.product, phase(seed=99))
        changed, raster = portal.phase(FRAME, PAIRS[0])
        assert changed.outcome is Outcome.DOWNLOADED
        assert raster is not None
        assert raster.values.tobytes() == phase(seed=99).tobytes()
        portal.close()
        assert [entry.status for entry in server.log] == [200, 304, 200]


def test_two_archives_do_not_share_their_copies(tree, tmp_path):
    with opened(Old(tree), tmp_path) as (portal, server):
        portal.phase(FRAME, PAIRS[0])
        other = f"http://localhost:{server.port}/LiCSAR_products"
        with LicsarPortal(Settings(licsar_url=other, cache_dir=tmp_path / "cache")) as second:
            assert second.phase(FRAME, PAIRS[0])[0].outcome is Outcome.DOWNLOADED


# --- metadata ------------------------------------------------------------------------------------------


def test_metadata_without_a_time_fall_back_on_the_registry(tmp_path):
    body = [b"master=20190501\nheading=-10\n"]
    with opened(lambda request: HttpResponse(200, body[0]), tmp_path) as (portal, _):
        known = portal.metadata(Frame("005A_07021_131313"))
        assert known.center_time == timedelta(minutes=40, seconds=34.002742)
        assert known.fields == {"master": "20190501", "heading": "-10"}
        assert any("registry" in note for note in known.receipt.notes)
        unknown = portal.metadata(FRAME)
        assert (unknown.center_time, unknown.fields) == (None, {"master": "20190501", "heading": "-10"})
        assert unknown.unknown_time.outcome is Outcome.ABSENT
        assert (
            "metadata.txt does not state it (it has no center_time; asked http://"
            in unknown.unknown_time.detail
        )
        assert unknown.satellite(date(2019, 7, 4)) == ""
        assert unknown.satellite(date(2015, 7, 4)) == "S1A"
        body[0] = b"center_time=1 day, 0:00:12\n"
        assert portal.metadata(FRAME).center_time == timedelta(days=1, seconds=12)
        for nonsense in (b"99 days, 5:00:00", b"999999999 days, 5:00:00"):
            body[0] = b"center_time=" + nonsense
            assert "not a time of day" in portal.metadata(FRAME).unknown_time.detail
        body[0] = b"center_time=noon\n"
        unknown = portal.metadata(FRAME).unknown_time
        assert (unknown.outcome, "noon" in unknown.detail) == (Outcome.CORRUPT, True)
        body[0] = b"\x00\x01 nothing of the kind"
        assert "metadata.txt is corrupt" in portal.metadata(FRAME).unknown_time.detail
        body[0] = b"\xef\xbb\xbfCenter_Time = 18:41 \n"
        assert portal.metadata(FRAME).center_time == timedelta(hours=18, minutes=41)
    assert portal.metadata(FRAME).unknown_time.outcome is Outcome.UNREACHABLE
    assert portal.metadata(Frame("005A_07021_131313")).receipt.outcome is Outcome.UNREACHABLE


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (png(19, 14)[:-8], "cut"),
        (png(19, 14, colour=9), "header is invalid"),
        (png(0, 14), "header is invalid"),
        (b"GIF89a" * 20, "first bytes"),
    ],
)
def test_a_bad_preview_is_corrupt(tmp_path, content, words):
    with opened(lambda request: HttpResponse(200, content), tmp_path) as (portal, _):
        receipt, size = portal.preview(FRAME, PAIRS[0])
        assert (receipt.outcome, size) == (Outcome.CORRUPT, None)
        assert words in receipt.detail


def test_the_geometry_of_a_frame_is_that_of_its_metadata(tmp_path: Path) -> None:
    with (
        ArchiveServer() as server,
        LicsarPortal(Settings(licsar_url=server.licsar_url, cache_dir=tmp_path)) as portal,
    ):
        for name in server.archive.world.frames:
            found = portal.metadata(Frame(name))
            for value, key in (
                (found.geometry.heading_deg, "heading"),
                (found.geometry.incidence_deg, "avg_incidence_angle"),
            ):
                assert value == (float(found.fields[key]) if key in found.fields else None)
            assert found.geometry.wavelength_m == pytest.approx(0.0554658, abs=1e-7)
            assert found.geometry.look_direction == "right"


@pytest.mark.parametrize("text", ["", "north", "nan", "inf", "1e9"])
def test_an_angle_that_is_none_is_not_taken(text: str) -> None:
    found = parse_geometry({"heading": text, "avg_incidence_angle": text})
    assert (found.heading_deg, found.incidence_deg) == (None, None)


def test_the_frames_of_a_track_are_listed(tmp_path: Path) -> None:
    with (
        ArchiveServer() as server,
        LicsarPortal(Settings(licsar_url=server.licsar_url, cache_dir=tmp_path)) as portal,
    ):
        frames = [Frame(name) for name in server.archive.world.frames]
        for track in {frame.track for frame in frames}:
            assert portal.frames(track) == tuple(sorted(frame for frame in frames if frame.track == track))
        with pytest.raises(HephaestusError, match=r"^track 12: the LiCSAR archive does not list its frames"):
            portal.frames(12)
