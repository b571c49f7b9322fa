"""A listing takes time in proportion to its length, whatever is in it."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest

from hephaestus_build.sources.licsar.html_listing import parse_links, parse_listing

FRAME = "106A_09048_000909"
BASE = f"https://gws-access.jasmin.ac.uk/public/LiCSAR_products/106/{FRAME}/interferograms/"
ROW = "20240106_20240118"


def trusts(url: str) -> bool:
    return url.startswith("https://") and url.split("/")[2].endswith(".jasmin.ac.uk")


@pytest.mark.parametrize(
    "piece",
    [
        "<title",
        "<title ",
        "<h1 <title ",
        "<a href=",
        f"<a href='{ROW}/'>x</a> 2024-03-01 09:30 ",
        "<!--<",
        "<a x></a ",
        "&" * 50,
        "<a href='&#" + "9" * 5000 + "'>",
        "<a href='" + "&" * 2000 + "'>",
        "<a href='" + "../" * 600 + "'>",
        "<a href='http://" + "é" * 250 + ".x/'>",
        "<a href= href=",
        "<title>" + " " * 1000,
        "<a href='http://[" + "a" * 300 + "'>",
    ],
)
def test_no_page_takes_longer_than_its_length(piece):
    page = piece * (1_000_000 // len(piece) + 1)
    for text in (page, f"<a href='x'>{page}", f"<title {page}", f"<a {page}>"):
        began = time.process_time()
        parse_listing(text, BASE, FRAME, trusts)
        with suppress(ValueError):
            parse_links(text, BASE, trusts)
        assert time.process_time() - began < 10  # seconds; what grows with the square takes hours
