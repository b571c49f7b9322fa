"""Tests of parsing, comparing and showing addresses: no secrets shown, no ambiguous hosts."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

import pytest
import requests
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.settings import Settings, load_settings
from hephaestus_build.core.web_address import HttpUrl, parse_url_setting, redact_url, url_origin


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("https://HOST.org/a?b#c", "host.org"),
        ("http://a@b@host.org/", "host.org"),
        ("http://host.org:80/", "host.org"),
        ("http://[::1]:80/", "[::1]"),
        ("http://bücher.example/", "xn--bcher-kva.example"),
        ("http://host.org./", "host.org."),
        ("http://host%2eorg/", "host.org"),
    ],
)
def test_the_host_is_the_one_that_is_asked(text, host):
    assert HttpUrl.parse(text).host == host


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host.org/x",
        "file:///etc/passwd",
        "user:secret@host.org/",
        "http:host.org",
        "http:///x",
        "http://evil.example\\.ceda.ac.uk/",
        "http://evil.example\t.ceda.ac.uk/",
        "http://evil.example\n/",
        "http://[::1/",
        "http://[fe80::1%25eth0]/",
        "http://host.org:99999/",
        "http://host.org:x/",
        "http://*.org/",
        "http://\u24d4vil\u3002ceda.ac.uk/",
        "http://" + "a" * 10_000,
    ],
)
def test_what_two_parsers_may_read_differently_is_no_address(text):
    with pytest.raises(ValueError, match=r"address|URL|label|host|parse|\."):
        HttpUrl.parse(text)
    assert redact_url(text) in ("", "(no address)")
    assert url_origin(text) == ("", "", 0)


def test_an_origin_is_scheme_host_and_port():
    assert url_origin("http://Host.org/a") == url_origin("http://host.org:80/b?c") == ("http", "host.org", 80)
    others = ("https://host.org/", "http://host.org:8080/", "http://host.org./", "http://a.host.org/")
    assert url_origin("http://host.org/") not in map(url_origin, others)


def test_a_reference_brings_no_login_and_takes_none_along():
    here = HttpUrl.parse("https://me:secret@host.org/a/b?sig=1")
    assert here.join("c").url_with_secrets == "https://host.org/a/c"
    assert here.join("//u:p@evil.example/x").url_with_secrets == "https://evil.example/x"
    assert here.child("c/d").url_with_secrets == "https://me:secret@host.org/a/b/c/d?sig=1"
    assert HttpUrl.parse("https://host.org/x").with_credentials_of(here).credentials == ("me", "secret")
    for other in ("http://host.org/x", "https://host.org:8443/x", "https://evil.example/x"):
        assert HttpUrl.parse(other).with_credentials_of(here).credentials is None
    for reference in ("ftp://host.org/", "file:///x", "http://evil\\.host.org/", "//["):
        with pytest.raises(ValueError, match=r"address|URL|label|host|parse|\."):
            here.join(reference)


_part = st.text(st.characters(blacklist_categories=("Cs",)), max_size=20)


@examples(deadline=None)
@given(_part, _part, _part, _part)
def test_no_secret_is_shown_and_all_is_sent(user, password, query, path):
    login = f"{quote(user, safe='')}:{quote(password, safe='')}"
    text = f"https://{login}@host.org:8443/{quote(path)}?q=zz{quote(query)}#f"
    address = HttpUrl.parse(text)
    for shown in (str(address), repr(address), redact_url(text)):
        assert "@" not in shown.replace(quote(path), "")
        assert "?" not in shown
        assert "q=zz" not in shown
    assert address.credentials == ((user, password) if user or password else None)
    assert HttpUrl.parse(address.url_with_secrets) == address
    assert redact_url(str(address)) == str(address)


@examples(deadline=None)
@given(
    st.one_of(st.text(max_size=60), st.text("htps:/\\@#?[]%.ab1 \t\n", max_size=40).map("http://".__add__))
)
def test_whatever_the_text_the_host_that_is_checked_is_the_host_that_is_asked(text):
    shown = redact_url(text)
    assert redact_url(shown) == (shown if shown != "(no address)" else "(no address)")
    try:
        address = HttpUrl.parse(text)
    except ValueError:
        return
    request = requests.Request("GET", address.request_url).prepare()
    assert request.url == address.request_url
    parts = urlsplit(request.url)
    assert (parts.scheme, parts.hostname) == (address.scheme, address.host.strip("[]"))
    assert "@" not in parts.netloc
    assert HttpUrl.parse(address.url_with_secrets) == address


def test_a_wrong_setting_is_named_and_its_value_is_not_shown(monkeypatch):
    with pytest.raises(UsageError, match="HEPHAESTUS_ARCO_URL") as caught:
        parse_url_setting("htp://me:secret@host.org/", "HEPHAESTUS_ARCO_URL")
    assert "secret" not in str(caught.value)
    settings = Settings(
        licsar_url="https://me:secret@x/", arco_url="https://x/?sig=secret", annotations="secret"
    )
    assert "secret" not in repr(settings)
    monkeypatch.setenv("HEPHAESTUS_TIMEOUT", "secret")
    with pytest.raises(UsageError) as caught:
        load_settings()
    assert "secret" not in str(caught.value)
