"""Environment variables that decide how servers are reached, proxies and certificates, named in messages."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from requests.utils import get_environ_proxies, select_proxy

from hephaestus_build.core.plain_text import sanitize_text

#: Variables that name a bundle of certificates, in the order of precedence of requests.
_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
#: Those of other programs, which requests does not read.
_OTHER_CA_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
# Name of a certificate in a folder, as OpenSSL looks for it.
_HASHED_NAME = re.compile(r"[0-9a-f]{8}\.\d+")


def find_proxy_variable(url: str) -> str:
    """Return the variable whose proxy is used for `url`, or "the system's settings"; empty without a proxy.

    The proxy itself is not named, since it may contain a password.
    """
    try:
        proxies = get_environ_proxies(url)
        if not select_proxy(url, proxies):
            return ""
        scheme = urlsplit(url).scheme
    except ValueError:
        return ""
    for name in (f"{scheme}_proxy", "all_proxy"):
        if name.removesuffix("_proxy") in proxies:
            used = [name] if os.environ.get(name) else [key for key in os.environ if key.lower() == name]
            return used[0] if used else "the system's settings"
    return "the system's settings"


def is_socks_proxy(url: str) -> bool:
    """Return whether the proxy for `url` is a SOCKS proxy."""
    return (select_proxy(url, get_environ_proxies(url)) or "").lower().startswith("socks")


def is_socks_package_missing() -> bool:
    """Return whether the package that SOCKS proxies need is not installed."""
    try:
        return find_spec("socks") is None
    except ValueError:  # unloadable
        return True


def find_ca_variable(names: Sequence[str] = _CA_VARIABLES) -> str:
    """Return the first of some variables that names a bundle of certificates; empty if none does."""
    return next((name for name in names if os.environ.get(name)), "")


def describe_ca_fault(names: Sequence[str] = _CA_VARIABLES) -> str:
    """Return what is wrong with the bundle of certificates that a variable names; empty if nothing is."""
    name = find_ca_variable(names)
    if not name:
        return ""
    path = Path(os.environ[name])
    fault = ""
    try:
        if not path.exists():
            fault = "does not exist"
        elif path.is_file():
            ssl.create_default_context(cafile=str(path))
        elif not any(path.iterdir()):
            fault = "is an empty folder"
        elif not any(_HASHED_NAME.fullmatch(item.name) for item in path.iterdir()):
            fault = "is a folder without certificates named by their hash (`openssl rehash` names them)"
    except ssl.SSLError:
        fault = "holds no certificates"
    except (OSError, ValueError) as error:
        fault = f"cannot be read ({getattr(error, 'strerror', None) or error})"
    return f"{name} names {sanitize_text(path)}, which {fault}: correct or unset it" if fault else ""


def advise_on_authorities() -> str:
    """Return whose certificates are trusted, and how to trust others, after one that is not."""
    if name := find_ca_variable():
        return f"no authority in {sanitize_text(os.environ[name])}, which {name} names, has signed it"
    if other := find_ca_variable(_OTHER_CA_VARIABLES):
        return f"{other} is not read here: name its authorities in REQUESTS_CA_BUNDLE"
    return "REQUESTS_CA_BUNDLE names other authorities"
