"""Prefect plugin for the short form ``prefect deployment run build-frame``.

Prefect itself needs ``build-frame/build-frame`` and an address. In this folder, where pyproject.toml enables
plugins, a bare name is read as ``name/name``, and a healthy server of this machine is used if no address is
configured. Where no server answers, a command that needs one ends with one line. The long form works without
the plugin.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from prefect.plugins import HookContext, SetupResult, register_hook

_RUN_COMMANDS = {("deployment", "run"), ("deployments", "run")}
#: Commands of Prefect that ask a server.
_API_COMMANDS = frozenset(
    {"artifact", "concurrency-limit", "deploy", "deployment", "deployments", "flow", "flow-run", "gcl"}
    | {"flow-runs", "flows", "global-concurrency-limit", "task-run", "work-pool", "work-queue", "worker"}
)
#: Options of `prefect deployment run` that take no value; all others do.
_VALUELESS_OPTIONS = {"--watch", "--help", "-h"}


def expand_deployment_name(arguments: Sequence[str]) -> list[str]:
    """Return a command's words with the name of ``deployment run NAME`` written as ``NAME/NAME``."""
    words = list(arguments)
    commands = [pair in _RUN_COMMANDS for pair in pairwise(words)]
    if True not in commands:
        return words
    for index in range(commands.index(True) + 2, len(words)):
        word, before = words[index], words[index - 1]
        if word.startswith("-"):
            continue
        if before.startswith("-") and "=" not in before and before not in _VALUELESS_OPTIONS:
            continue  # the value of an option
        if "/" not in word:
            words[index] = f"{word}/{word}"
        break
    return words


def starts_run(arguments: Sequence[str]) -> bool:
    """Return whether a command starts a run, for which a temporary server is of no use."""
    return any(pair in _RUN_COMMANDS for pair in pairwise(arguments))


def asks_api(arguments: Sequence[str]) -> bool:
    """Return whether a command of Prefect asks a server, and so fails at once without one."""
    commands = [word for word in arguments[1:] if not word.startswith("-")]
    return commands[:1] != [] and commands[0] in _API_COMMANDS and not {"--help", "-h"} & set(arguments)


@register_hook
def setup_environment(*, ctx: HookContext) -> SetupResult | None:
    """Expand a bare deployment name, and point at this machine's server; only for the ``prefect`` command."""
    if Path(sys.argv[0]).stem != "prefect" and sys.orig_argv[1:3] != ["-m", "prefect"]:
        return None
    # later: it may be what imports Prefect, and so loads this
    from hephaestus_build.core.errors import HephaestusError
    from hephaestus_flows.local_server import check_home
    from hephaestus_flows.server_api import (
        api_credentials,
        api_url,
        bypass_proxies,
        is_server_healthy,
        require_server,
    )

    bypass_proxies()
    sys.argv[:] = expand_deployment_name(sys.argv)
    url = api_url()
    if secret := api_credentials(url):
        # not in the result below, which `prefect plugins diagnose` shows
        os.environ["PREFECT_API_AUTH_STRING"] = secret
    wants_api = asks_api(sys.argv)
    is_there = is_server_healthy(url)
    try:
        if wants_api and (is_there or ctx.api_url is not None or starts_run(sys.argv)):
            require_server(url)
        elif wants_api:  # of a temporary server, which Prefect starts for one command
            check_home()
    except HephaestusError as error:  # Prefect's own words for it are a traceback
        print(f"hephaestus: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    if ctx.api_url is None and is_there:
        return SetupResult(env={"PREFECT_API_URL": url}, note=f"server at {url}")
    return None
