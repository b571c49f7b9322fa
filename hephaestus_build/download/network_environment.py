"""Environment variables that decide how servers are reached, proxies and certificates, named in messages."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from requests.utils import get_environ_proxies, select_proxy

from hephaestus_build.core.plain_text import sanitize_text

#: Variables that name a bundle of certificates, in the order of precedence of requests.
_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


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


def describe_ca_fault() -> str:
    """Return what is wrong with the bundle of certificates that a variable names; empty if nothing is."""
    name = next((name for name in _CA_VARIABLES if os.environ.get(name)), None)
    if name is None:
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
    except ssl.SSLError:
        fault = "holds no certificates"
    except OSError as error:
        fault = f"cannot be read ({error.strerror})"
    return f"{name} names {sanitize_text(path)}, which {fault}: correct or unset it" if fault else ""
