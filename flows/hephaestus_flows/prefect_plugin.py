"""Prefect plugin for the short form ``prefect deployment run build-frame``.

Prefect itself needs ``build-frame/build-frame`` and an address. In this folder, where pyproject.toml enables
plugins, a bare name is read as ``name/name``, and a healthy server of this machine is used if no address is
configured. The long form works without the plugin.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from prefect.plugins import HookContext, SetupResult, register_hook

_RUN_COMMANDS = {("deployment", "run"), ("deployments", "run")}
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


@register_hook
def setup_environment(*, ctx: HookContext) -> SetupResult | None:
    """Expand a bare deployment name, and point at this machine's server; only for the ``prefect`` command."""
    if Path(sys.argv[0]).stem != "prefect" and sys.orig_argv[1:3] != ["-m", "prefect"]:
        return None
    # later: it may be what imports Prefect, and so loads this
    from hephaestus_build.core.errors import HephaestusError
    from hephaestus_flows.local_server import api_credentials, api_url, check_access, is_server_healthy

    before = list(sys.argv)
    sys.argv[:] = expand_deployment_name(before)
    url = api_url()
    if secret := api_credentials(url):
        # not in the result below, which `prefect plugins diagnose` shows
        os.environ["PREFECT_API_AUTH_STRING"] = secret
    if ctx.api_url is not None:
        return None
    if is_server_healthy(url):
        try:
            check_access(url)
        except HephaestusError as error:  # Prefect's own words for it are a traceback
            print(error, file=sys.stderr)
        return SetupResult(env={"PREFECT_API_URL": url}, note=f"server at {url}")
    if sys.argv != before:
        print(f"no Prefect server answers at {url}; `make serve` starts one", file=sys.stderr)
    return None
