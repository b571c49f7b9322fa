"""Tests of parsing listings and link pages of all styles."""

from __future__ import annotations

import time
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from hephaestus_build.core.frames import Frame, Pair
from hephaestus_build.sources.licsar.html_listing import MAX_LINKS, parse_anchors, parse_links, parse_listing
from licsar_files import autoindex

FRAME = Frame("106A_09048_000909")
BASE = f"https://gws-access.jasmin.ac.uk/public/LiCSAR_products/106/{FRAME}/interferograms/"


def trusts(url: str) -> bool:
    return url.startswith("https://") and url.split("/")[2].endswith(".jasmin.ac.uk")


def read(page: str, url: str = BASE) -> Any:
    return parse_listing(page, url, FRAME.id, trusts)


ROW = "20240106_20240118"


@pytest.mark.parametrize(
    ("page", "modified"),
    [
        (f'<pre><a href="{ROW}/">{ROW}/</a>      2024-03-01 09:30    -   \n</pre>', "2024-03-01 09:30"),
        (f'<pre><a href="{ROW}">{ROW}</a>  01-Mar-2024 09:30    1.2K\n</pre>', "01-Mar-2024 09:30"),
        (
            (
                f'<tr><td><a href="{ROW}/"><img></a></td><td><a href="{ROW}/">{ROW}</a></td>'
                f"<td>2024-03-01 09:30  </td></tr>"
            ),
            "2024-03-01 09:30",
        ),
        (f"<li><a href='{ROW}/'>{ROW}/</a></li>", None),
        (f"<A HREF={ROW}/>x</A>", None),
        (f'<a href="{BASE}{ROW}">x</a>', None),
        (f'<a href="/public/LiCSAR_products/106/{FRAME}/interferograms/{ROW}/">x</a>', None),
        (f'<a href="https://other.jasmin.ac.uk/x/106/{FRAME}/interferograms/{ROW}">x</a>', None),
        (f'<a href="./{ROW}">x</a>', None),
        (f'<a href="{ROW}"', None),
    ],
)
def test_listings_of_every_make_are_read(page, modified):
    entries = read(page)
    if page.endswith('"'):  # cut in the middle of a tag
        assert entries.pairs == ()
        return
    assert [(item.pair.name, item.modified) for item in entries.pairs] == [(ROW, modified)]
    assert entries.ignored == ()
    assert entries.pairs_are_folders is (f"{ROW}/" in page)


@pytest.mark.parametrize(
    "href",
    [
        f"../{ROW}",
        f"../../../../{ROW}/",
        f"..%2f{ROW}",
        f"..\\{ROW}",
        f"/etc/{ROW}",
        f"/{ROW}",
        f"//evil.example/{FRAME}/interferograms/{ROW}",
        f"https://evil.example/106/{FRAME}/interferograms/{ROW}",
        f"https://gws-access.jasmin.ac.uk/public/LiCSAR_products/1/005A_07021_131313/interferograms/{ROW}",
        f"file:///x/{FRAME}/{ROW}",
        f"javascript:{ROW}",
        "20240118_20240106",
        "20240106_20240106",
        "20240230_20240301",
        "00000000_99999999",
        f"{ROW}.zip",
        f"{ROW}%00",
        f"sub/{ROW}",
        "http://[::1/20240106_20240118",
        "../../../../etc/passwd",
        "20240106_20240118\x1b[31m",
    ],
)
def test_hostile_names_are_ignored_and_counted(href):
    entries = read(f'<h1>Index of x</h1><a href="{href}">x</a> <a href="20240118_20240130/">y</a>')
    assert [item.pair.name for item in entries.pairs] == ["20240118_20240130"]
    assert len(entries.ignored) == 1
    assert entries.ignored[0].isprintable()


def test_the_furniture_of_a_listing_is_neither_a_pair_nor_ignored():
    page = (
        "<title>Index of /x</title><a href='?C=N;O=D'>Name</a><a href='../'>Parent Directory</a>"
        "<a href='/public/LiCSAR_products/106/'>up</a><a href='./'>here</a><a href='#top'>top</a>"
    )
    entries = read(page)
    assert (entries.pairs, entries.ignored, entries.is_listing) == ((), (), True)
    assert not read(
        "<html><body>Maintenance. <a href='https://x.example/status'>Status</a></body></html>"
    ).is_listing
    assert not read("").is_listing


@pytest.mark.parametrize("link", ["/", "/LiCSAR_products/", "#top", "?retry=1", "./"])
def test_a_page_that_leads_home_is_no_empty_listing(link):
    assert not read(f"<html><h1>Down for maintenance</h1><a href='{link}'>Home</a></html>").is_listing


def test_half_a_listing_is_none():
    page = autoindex([f"{ROW}/"])
    assert read(page).is_listing
    assert not read(page[: page.index("</table>")]).is_listing


@pytest.mark.parametrize("name", ["09991231_20200113", "00010101_20200113", "20200101_99991231"])
def test_days_that_no_satellite_saw_are_no_pair(name):
    entries = read(f'<title>Index of /x</title><a href="{name}/">{name}/</a><a href="{ROW}/">{ROW}/</a>')
    assert [item.pair.name for item in entries.pairs] == [ROW]
    assert entries.ignored == (f"{name}/",)


def test_a_pair_listed_twice_counts_once_and_keeps_its_date():
    entries = read(f'<a href="{ROW}/">x</a><a href="{ROW}">y</a> 2024-03-01 09:30<a href="{ROW}">z</a>')
    assert [(item.pair.name, item.modified) for item in entries.pairs] == [(ROW, "2024-03-01 09:30")]


pairs = st.tuples(st.dates(date(2014, 4, 1), date(2030, 1, 1)), st.integers(6, 900)).map(
    lambda item: Pair(item[0], item[0] + timedelta(item[1]))
)


@examples(deadline=None)
@given(st.lists(pairs, unique=True, max_size=20), st.booleans(), st.booleans())
def test_every_listed_pair_is_found_in_order(wanted, slashes, absolute):
    rows = [f"{BASE if absolute else ''}{pair}{'/' if slashes else ''}" for pair in wanted]
    entries = read(autoindex(rows))
    assert [item.pair for item in entries.pairs] == sorted(wanted)
    assert all(item.modified for item in entries.pairs)


@examples(deadline=None)
@given(st.text(max_size=300))
def test_no_page_breaks_the_reader(text):
    entries = read(text)
    assert all(item.pair.primary < item.pair.secondary for item in entries.pairs)
    parse_links(text, BASE, trusts)
    parse_anchors(f"<a href='{text}'>")


def test_what_a_page_has_commented_out_is_not_listed():
    kept = f'<a href="{ROW}">x</a>'
    gone = '<A HREF="20200101_20200113/">y</A>'
    for page in (f"<!-- {gone} -->{kept}", f"{kept}<!--{gone}", f"<!-- -->{kept}<!--\n{gone}\n-->"):
        assert [item.pair.name for item in read(page).pairs] == [ROW]
    assert len(read(kept + gone).pairs) == 2


@pytest.mark.parametrize("piece", ["<a ", "<", "<!--", "<a href='", "</a ", "<a href=' >", "&#", "<a>"])
def test_no_page_takes_long(piece):
    page = piece * (1_000_000 // len(piece))
    began = time.process_time()
    read(page)
    read(page + ">")
    read(f"<a href='x'>{page}")
    assert time.process_time() - began < 20  # seconds; quadratic time would take hours


def test_links_are_matched_by_name_and_host():
    page = (
        "<a href='https://gws-access.jasmin.ac.uk/p/a.tif'>a.tif</a><br />\n"
        "<a href='b.tif'>b.tif</a><a href='https://evil.example/c.tif'>c.tif</a>"
        "<a href='../../d.tif'>d.tif</a><a href='https://x.jasmin.ac.uk/other/a.tif'>a.tif</a>"
        "<a href='https://x.jasmin.ac.uk/'>home</a><a href='http://[/e.tif'>e.tif</a>"
    )
    assert parse_links(page, BASE + ROW, trusts) == {
        "a.tif": "https://gws-access.jasmin.ac.uk/p/a.tif",
        "b.tif": BASE + "b.tif",
    }
    assert parse_links("<a href='b.tif'>", BASE + ROW + "/", trusts) == {"b.tif": f"{BASE}{ROW}/b.tif"}


def test_more_links_than_any_archive_has_are_no_listing():
    page = f"<title>Index of /</title><a href='{ROW}/'>x</a>" + "<a href=x>" * MAX_LINKS
    assert read(page).is_listing is False
    with pytest.raises(ValueError, match="links"):
        parse_links(page, BASE, trusts)


@examples(deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "<a ",
                "href",
                "=",
                "'",
                '"',
                ">",
                "</a>",
                "&#",
                "99999999999",
                ";",
                ROW,
                "/",
                "\\",
                "\x1b",
                "..",
                "http://",
                "x.jasmin.ac.uk",
                "@",
                "%2f",
                "<!--",
                "-->",
                " ",
                "[",
                "\t",
            ]
        ),
        max_size=40,
    ).map("".join)
)
def test_pages_made_of_their_pieces_are_read_without_harm(text):
    for item in read(text).ignored:
        assert item.isprintable()
    for link in parse_links(text, BASE, trusts).values():
        assert "\\" not in link
        assert link.isprintable()
