"""Full resolution in a site: a page that reads a pair from its cube by HTTP, and the scripts it needs."""

from __future__ import annotations

import json
import re
from functools import cache

from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.settings import Settings
from hephaestus_build.core.web_address import HttpUrl, parse_url_setting
from hephaestus_build.download.npm_registry import NpmPackage, fetch_package, find_npm_registry
from hephaestus_build.pages.assets import read_asset
from hephaestus_build.pages.colour_maps import byte_palette
from hephaestus_build.pages.markup import Markup, fill_template, hash_source, tag
from hephaestus_build.pages.render import embed_json
from hephaestus_build.pages.site.page_parts import (
    ICON,
    render_credits,
    simulated_badge,
    site_style,
)

#: The page, and the folder of the scripts of others.
FULL_PAGE, VENDOR = "full.html", "vendor"
#: Where cubes stand beside a site, unless another address is given.
CUBES_BESIDE = "cubes/"
_SCRIPTS = ("elements.js", "site_full_cube.js", "site_full_blosc.js", "site_full_view.js", "site_full.js")
#: zarrita with the one package that it always imports, and a decoder of Zstandard in plain JavaScript. Its
#: other dependencies serve archives and codecs that no cube has, or need what the page's policy forbids.
PACKAGES = (
    NpmPackage(
        "zarrita",
        "0.7.5",
        "sha512-ZriOSEne+Wf2iuM0yjDZvUKpHNlug3dO7qJ6mAxXoOgsYV18DPOkAkwB9e0rf21bHcKcOffFuwoZwn5g6pvUeA==",
        r"dist/src/(?:[a-z0-9_-]+/){0,2}[a-z0-9_-]+\.js",
    ),
    NpmPackage(
        "@zarrita/storage",
        "0.2.0",
        "sha512-855ZXqtnds7spnT8vNvD+MXa3QExP1m2GqShe8yt7uZXHnQLgJHgkpVwFjE1B0KDDRO0ki09hmk6OboTaIfPsQ==",
        r"dist/src/(?:fetch|util)\.js",
    ),
    NpmPackage(
        "fzstd",
        "0.1.1",
        "sha512-dkuVSOKKwh3eas5VkJy1AW1vFpet8TA/fGmVA5krThl8YcOVE/8ZIoEA1+U1vEn5ckxxhLirSdY837azmbaNHA==",
        r"esm/index\.mjs",
    ),
)
_ZARRITA, _STORAGE, _FZSTD = (f"./{VENDOR}/{package.folder}" for package in PACKAGES)
#: Where the browser finds each name that a script imports.
_IMPORTS = {
    "zarrita": f"{_ZARRITA}/dist/src/index.js",
    "@zarrita/storage/fetch": f"{_STORAGE}/dist/src/fetch.js",
    "fzstd": f"{_FZSTD}/esm/index.js",
}
#: A host and port that means nothing else in a content security policy.
_PLAIN_HOST = re.compile(r"[A-Za-z0-9.:\[\]_-]+", re.ASCII)


def parse_cubes_url(text: str) -> HttpUrl:
    """Return the address of a folder of cubes that browsers read.

    Raises
    ------
    UsageError
        If it is no address, or has a login or a query, which every reader of the page would see.
    """
    address = parse_url_setting(text, "--cubes-url")
    if address.credentials is not None or address.query is not None:
        raise UsageError(
            "--cubes-url has a login or a query, which everybody who opens the page would see: name an "
            "address without them"
        )
    if not _PLAIN_HOST.fullmatch(address.netloc):
        raise UsageError("--cubes-url names a host with letters that a page's policy cannot hold")
    return address


def fetch_scripts(settings: Settings) -> dict[str, bytes]:
    """Return the scripts that full resolution needs, with their licences, by their paths in the site.

    Parameters
    ----------
    settings : Settings
        Folder of the cache, which is asked first, and how a server is asked.

    Raises
    ------
    HephaestusError
        If a package cannot be had.
    """
    registry = cache(find_npm_registry)
    try:
        return {
            # some web servers do not know .mjs, and a browser runs only what is said to be JavaScript
            f"{VENDOR}/{package.folder}/{name.replace('.mjs', '.js')}": content
            for package in PACKAGES
            for name, content in fetch_package(package, registry, settings).items()
        }
    except HephaestusError as error:
        raise HephaestusError(
            f"full resolution is left out of the site: {error}; run the same command again where a registry "
            "is reached (npm_config_registry or ~/.npmrc names another one); once fetched, it is kept"
        ) from error


def render_full_page(cubes: HttpUrl | None, *, simulated: bool, version: str) -> str:
    """Return the page that shows a pair at full resolution. Its address says which, after the ``#``.

    Parameters
    ----------
    cubes : HttpUrl or None
        The folder of the cubes; None if they stand beside the site.
    simulated : bool
        Whether the site is of simulated cubes.
    version : str
        Version of this program.
    """
    style = site_style() + read_asset("site_full.css")
    imports = json.dumps({"imports": _IMPORTS})
    script = "\n".join(read_asset(name).replace('"use strict";\n', "") for name in _SCRIPTS)
    data = {
        "cubes": f"{str(cubes).rstrip('/')}/" if cubes is not None else CUBES_BESIDE,
        "simulated": simulated,
        "palettes": {
            "phase": byte_palette("romaO").tobytes().hex(),
            "coherence": byte_palette("grayC").tobytes().hex(),
        },
    }
    return fill_template(
        "site_full.html",
        policy=_policy(style, imports, script, cubes),
        version=version,
        title=f"Full resolution{' (SIMULATED)' if simulated else ''}",
        icon=ICON,
        imports=Markup(imports),
        style=Markup(style),
        badge=simulated_badge(simulated=simulated),
        stamp=tag("span", "SIMULATED", class_="stamp") if simulated else "",
        credits=render_credits(simulated=simulated, coastlines=False),
        scripts=", ".join(f"{package.name} {package.version}" for package in PACKAGES),
        data=embed_json(data),
        script=Markup(script),
    )


def _policy(style: str, imports: str, script: str, cubes: HttpUrl | None) -> str:
    """Return the policy of the page: scripts of the site, and reading the cubes."""
    elsewhere = f" {cubes.scheme}://{cubes.netloc}" if cubes is not None else ""
    return (
        f"default-src 'none'; img-src data:; style-src {hash_source(style)}; "
        f"script-src 'self' {hash_source(imports)} {hash_source(script)}; "
        f"connect-src 'self'{elsewhere}; base-uri 'none'; form-action 'none'"
    )
