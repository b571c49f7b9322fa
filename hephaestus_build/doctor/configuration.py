"""Checks of what the user has configured: settings and where they come from, keys and logins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hephaestus_build.core.errors import HephaestusError, UsageError
from hephaestus_build.core.settings import SettingOrigin, Settings
from hephaestus_build.core.web_address import HttpUrl, parse_url_setting, redact_url
from hephaestus_build.doctor.check import Check, judge
from hephaestus_build.download.credentials import (
    CDS_API_URL,
    CDS_KEY_HELP,
    find_cds_credentials,
    find_netrc_fault,
    netrc_login,
    netrc_path,
)
from hephaestus_build.download.network_environment import (
    describe_ca_fault,
    find_ca_variable,
    find_proxy_variable,
    is_socks_package_missing,
    is_socks_proxy,
)

_ADDRESSES = ("licsar_url", "licsar_mirror_url", "arco_url", "annotations")


def settings_with_origins(
    settings: Settings, origins: Mapping[str, SettingOrigin]
) -> dict[str, dict[str, Any]]:
    """Return the value of each setting, without secrets, and its origin.

    Parameters
    ----------
    settings : Settings
        The settings that take effect.
    origins : mapping of str to str
        Where each comes from.
    """
    return {
        name: {"value": _plain(name, getattr(settings, name)), "origin": origin}
        for name, origin in origins.items()
    }


def _plain(name: str, value: Any) -> Any:
    """Return a value as JSON, an address without user, password and query, a secret one without its path."""
    if name == "heartbeat_url" and value is not None:
        address = HttpUrl.parse(value)
        return f"{address.scheme}://{address.netloc}/..."
    if name in _ADDRESSES and value is not None and "://" in str(value):
        return redact_url(str(value))
    if isinstance(value, Mapping):
        return {str(key): _plain("", item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain("", item) for item in value]
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def check_settings(settings: Settings, origins: Mapping[str, SettingOrigin]) -> Iterator[Check]:
    """Yield the checks of the settings.

    Parameters
    ----------
    settings : Settings
        The settings that take effect.
    origins : mapping of str to str
        Where each comes from.
    """
    described = settings_with_origins(settings, origins)
    given = {name: item for name, item in described.items() if item["origin"] != "default"}
    said = [f"{name} = {item['value']} ({item['origin']})" for name, item in given.items()]
    if described:
        rest = "all others by default" if given else "all are at their defaults"
        yield Check("settings", "ok", ", ".join([*said, rest]))
    faults = []
    for name in _ADDRESSES:
        value = getattr(settings, name)
        if value is not None and (name != "annotations" or "://" in str(value)):
            try:
                parse_url_setting(str(value), f"HEPHAESTUS_{name.upper()}")
            except UsageError as error:
                faults.append(str(error))
        elif value is not None and not Path(value).exists():
            faults.append(f"HEPHAESTUS_ANNOTATIONS is {value}, which does not exist")
    yield judge(
        "addresses",
        "; ".join(faults),
        ok=f"portal {redact_url(settings.licsar_url)}, ARCO {redact_url(settings.arco_url)}",
        next_step="correct them; `hephaestus settings` describes each",
    )


def check_network(settings: Settings) -> Check:
    """Return the check of proxies and certificates that the environment names."""
    addresses = [settings.licsar_url, settings.arco_url, CDS_API_URL]
    proxies = {url: name for url in addresses if (name := find_proxy_variable(url))}
    socks = sorted({name for url, name in proxies.items() if is_socks_proxy(url)})
    faults = [describe_ca_fault()]
    if socks and is_socks_package_missing():
        faults.append(f"{', '.join(socks)} names a SOCKS proxy, for which the package PySocks is missing")
    proxy = f"proxy in {', '.join(sorted(set(proxies.values())))}" if proxies else "no proxy"
    certificates = f"certificates in {find_ca_variable()}" if find_ca_variable() else "the usual certificates"
    return judge(
        "network",
        "; ".join(filter(None, faults)),
        ok=f"{proxy}, {certificates}",
        next_step="correct or unset those variables" + (", or `pip install PySocks`" if socks else ""),
    )


def check_keys(settings: Settings) -> Iterator[Check]:
    """Yield the checks of the key of the CDS and of the login of the portal, without showing them."""
    try:
        credentials = find_cds_credentials()
    except HephaestusError as error:
        yield Check("cds_key", "failed", str(error), "mend or remove that file")
    else:
        if credentials is None:
            needed = settings.era5 == "cds"
            yield Check(
                "cds_key",
                "failed" if needed else "ok",
                "no key is configured" + ("" if needed else ": ERA5 comes from ARCO, which needs none"),
                CDS_KEY_HELP if needed else "",
            )
        elif credentials.is_legacy:
            yield Check(
                "cds_key",
                "failed" if settings.era5 == "cds" else "warning",
                f"the key or address in {credentials.found_in} is of the service before 2024",
                CDS_KEY_HELP,
            )
        elif not credentials.verify_tls:
            yield Check(
                "cds_key",
                "warning",
                f"{credentials.found_in} has `verify: 0`: the certificate of the CDS is not checked",
                "remove that line",
            )
        else:
            yield Check(
                "cds_key",
                "ok",
                f"found in {credentials.found_in}, for {redact_url(credentials.url)}; "
                f"--live says whether the CDS takes it and its licence is accepted",
            )
    fault = find_netrc_fault()
    with suppress(UsageError):  # `addresses` says so
        place = find_portal_login(settings)
        yield judge(
            "portal_login",
            "" if place else fault,
            ok=f"found in {place}; --live says whether the portal takes it"
            if place
            else "none, and the real portal needs none",
            next_step="correct that file",
            verdict="warning",
        )


def find_portal_login(settings: Settings) -> str:
    """Return where the login of the portal stands; empty if there is none.

    Raises
    ------
    UsageError
        If the address of the portal is none.
    """
    address = parse_url_setting(settings.licsar_url, "HEPHAESTUS_LICSAR_URL")
    if address.credentials:
        return "the address HEPHAESTUS_LICSAR_URL"
    return str(netrc_path()) if netrc_login(address) else ""
