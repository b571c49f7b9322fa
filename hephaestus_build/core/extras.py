"""Extras of this package, and plugins that other installed packages provide.

A package provides a plugin by an entry point in its pyproject.toml::

    [project.entry-points."hephaestus_build.commands"]
    forecast = "volcano_forecast.command"
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from hephaestus_build.core.errors import HephaestusError
from hephaestus_build.core.plain_text import sanitize_text

log = logging.getLogger(__name__)

#: Required packages of each extra, and the command that installs it in a checkout.
_EXTRAS = {
    "flows": (("prefect", "uvicorn"), "make serve"),
    "cluster": (("distributed", "cryptography"), "make .venv/.ready"),
    "catalog": (("pystac", "pyarrow"), "make cubes"),
    "baselines": (("torch", "lightning", "timm", "segmentation_models_pytorch"), "make benchmark"),
}
#: Name of this package in its metadata.
_OWN_DISTRIBUTION = "hephaestus-build"


def check_extra(extra: str, who: str) -> None:
    """Check that the packages of an extra are installed.

    Parameters
    ----------
    extra : str
        ``flows``, ``cluster``, ``catalog`` or ``baselines``.
    who : str
        Feature that needs it, as the subject of a sentence.

    Raises
    ------
    HephaestusError
        If one of its packages is missing.
    """
    packages, _ = _EXTRAS[extra]
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise HephaestusError(f"{who} needs {missing[0]}, which is not installed; {install_hint(extra)}")


def install_hint(extra: str) -> str:
    """Return the command that installs an extra, as the end of an error message."""
    _, make = _EXTRAS[extra]
    return f"`pip install 'hephaestus-build[{extra}]'` installs it (in a checkout: `{make}`)"


@dataclass(frozen=True)
class Plugin:
    """A plugin of an installed package, which is not loaded yet.

    Attributes
    ----------
    group : str
        Group of the entry point, such as ``hephaestus_build.commands``.
    name : str
        Name of the entry point.
    value : str
        Object reference: ``module`` or ``module:attribute``.
    distribution : str
        The installed package that declares it, such as ``volcano-forecast``.
    """

    group: str
    name: str
    value: str
    distribution: str

    def load(self) -> Any:
        """Import and return the object that the entry point refers to.

        Raises
        ------
        HephaestusError
            If the import fails for any reason.
        """
        from importlib.metadata import EntryPoint

        try:
            return EntryPoint(self.name, self.value, self.group).load()
        except (Exception, SystemExit) as error:  # code of another package may raise anything
            advice = install_hint("baselines") if self.distribution == _OWN_DISTRIBUTION else ""
            raise self.make_error("cannot be loaded", error, advice) from error

    def make_error(
        self, problem: str, cause: BaseException | None = None, advice: str = ""
    ) -> HephaestusError:
        """Return an error with a one-line message that names the plugin, its package and the problem.

        Parameters
        ----------
        problem : str
            Predicate of the message, such as ``cannot be loaded``.
        cause : BaseException, optional
            Original exception, which is quoted, and logged with its traceback.
        advice : str, optional
            Next step; by default, to update or remove the package.
        """
        where = f" of the package {self.distribution}"
        if self.distribution == _OWN_DISTRIBUTION:
            where, advice = "", advice or "run the same command with `hephaestus -v` to see where"
        if cause is not None:
            log.debug("plugin %s%s", self.name, where, exc_info=cause)
            problem += f" ({type(cause).__name__}: {sanitize_text(cause, 300)})"
        advice = advice or f"update that package, or remove it: `pip uninstall {self.distribution}`"
        kind = self.group.rpartition(".")[2].removesuffix("s")
        return HephaestusError(f"the {kind} {self.name}{where} {problem}; {advice}")


def find_plugins(group: str) -> dict[str, Plugin]:
    """Find the plugins of a group in all installed packages, without loading them.

    Parameters
    ----------
    group : str
        Entry point group, such as ``hephaestus_build.commands``.

    Returns
    -------
    dict of str to Plugin
        Plugins by name, sorted. If two have the same name, the first on ``sys.path`` is used.
    """
    from importlib.metadata import entry_points

    found: dict[str, Plugin] = {}
    for entry in entry_points(group=group):
        distribution = entry.dist.name if entry.dist is not None else "unknown"
        found.setdefault(entry.name, Plugin(group, entry.name, entry.value, distribution))
    return dict(sorted(found.items()))
