"""Environment variables that containers and orchestrators set, which mean something else than they seem to.

Kubernetes tells every container about each service by variables that begin with the service's name, and
Docker did so for linked containers. A service called ``hephaestus`` gives variables that begin as the
settings of this package do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping

#: Smallest usable width and height of a terminal; ``COLUMNS=0`` is set by docker, serial lines and Emacs.
MIN_TERMINAL_SIZE = {"COLUMNS": 20, "LINES": 2}
_MAX_TERMINAL_SIZE = 100_000
_PROTOCOL = r"(?:tcp|udp|sctp)"
_PORT_NUMBER = r"[0-9]{1,5}"
_ADDRESS = r"[0-9a-f.:%]+|[a-z0-9]([-a-z0-9.]*[a-z0-9])?"
# what follows the name of a service in a variable's name, and what its value looks like
_SERVICE_FORMS = tuple(
    (re.compile(name), re.compile(value, re.IGNORECASE | re.DOTALL))
    for name, value in (
        (r"SERVICE_HOST", _ADDRESS),
        (r"SERVICE_PORT(_[A-Z0-9_]+)?", _PORT_NUMBER),
        (rf"PORT(_{_PORT_NUMBER}_[A-Z]+(_START|_END)?)?", rf"{_PROTOCOL}://\S+"),
        (rf"PORT_{_PORT_NUMBER}_[A-Z]+_PROTO", _PROTOCOL),
        (rf"PORT_{_PORT_NUMBER}_[A-Z]+_PORT(_START|_END)?", _PORT_NUMBER),
        (rf"PORT_{_PORT_NUMBER}_[A-Z]+_ADDR", _ADDRESS),
        (r"NAME", r"/\S+"),
        (r"ENV_.+", r".*"),  # the variables of a linked container itself
    )
)


def is_service_variable(name: str, value: str, prefix: str) -> bool:
    """Return whether a variable describes a service of Kubernetes or a linked container of Docker.

    Its form decides, of name and value, so that a setting with a typing error is not taken for one.

    Parameters
    ----------
    name, value : str
        The variable.
    prefix : str
        What the names of the program's settings begin with, such as ``HEPHAESTUS_``; the service may have
        a longer name.

    Examples
    --------
    >>> is_service_variable("HEPHAESTUS_PORT", "tcp://10.0.0.11:80", "HEPHAESTUS_")
    True
    >>> is_service_variable("HEPHAESTUS_BUILD_SERVICE_HOST", "10.0.0.11", "HEPHAESTUS_")
    True
    >>> is_service_variable("HEPHAESTUS_PORT", "8080", "HEPHAESTUS_")
    False
    """
    if not name.startswith(prefix):
        return False
    words = name[len(prefix) :].split("_")
    ends = ["_".join(words[start:]) for start in range(len(words))]
    return any(
        form.fullmatch(end) and looks.fullmatch(value) for form, looks in _SERVICE_FORMS for end in ends
    )


def discard_unusable_size(environ: MutableMapping[str, str]) -> None:
    """Remove COLUMNS and LINES where they are no size of a terminal; programs then find or assume one."""
    for name in find_unusable_sizes(environ):
        del environ[name]


def find_unusable_sizes(environ: Mapping[str, str]) -> list[str]:
    """Return those of COLUMNS and LINES that are set, but to no usable number.

    Examples
    --------
    >>> find_unusable_sizes({"COLUMNS": "0", "LINES": "40"})
    ['COLUMNS']
    """
    return [
        name
        for name, least in MIN_TERMINAL_SIZE.items()
        if name in environ and not least <= _parse_size(environ[name]) <= _MAX_TERMINAL_SIZE
    ]


def _parse_size(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 9 else 0
