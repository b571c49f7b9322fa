"""Optional parts: the extras of this package, and the plugins that installed packages add to it.

A package adds a plugin by an entry point, in its pyproject.toml::

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

#: The packages that an extra cannot do without, and the command that adds it in a checkout.
_EXTRAS = {
    "flows": (("prefect", "uvicorn"), "make serve"),
    "baselines": (("torch", "lightning", "timm", "segmentation_models_pytorch"), "make benchmark"),
}
#: This package, as the folder of its metadata is called.
_OWN_DISTRIBUTION = "hephaestus-build"


def check_extra(extra: str, who: str) -> None:
    """Refuse to go on without what an extra installs.

    Parameters
    ----------
    extra : str
        ``flows`` or ``baselines``.
    who : str
        Who needs it, as the subject of a sentence.

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
    """Return the end of a message that something is missing: the command that installs an extra."""
    _, make = _EXTRAS[extra]
    return f"`pip install 'hephaestus-build[{extra}]'` installs it (in a checkout: `{make}`)"


@dataclass(frozen=True)
class Plugin:
    """What an installed package adds, not loaded yet.

    Attributes
    ----------
    group : str
        Group of the entry point, such as ``hephaestus_build.commands``.
    name : str
        Name of the entry point.
    value : str
        What it refers to: ``module`` or ``module:attribute``.
    distribution : str
        The installed package that declares it, such as ``volcano-forecast``.
    """

    group: str
    name: str
    value: str
    distribution: str

    def load(self) -> Any:
        """Import what the entry point refers to, and return it.

        Raises
        ------
        HephaestusError
            If that fails, however it does.
        """
        from importlib.metadata import EntryPoint

        try:
            return EntryPoint(self.name, self.value, self.group).load()
        except (Exception, SystemExit) as error:  # another package's code: whatever it raises, it is named
            advice = install_hint("baselines") if self.distribution == _OWN_DISTRIBUTION else ""
            raise self.make_error("cannot be loaded", error, advice) from error

    def make_error(
        self, problem: str, cause: BaseException | None = None, advice: str = ""
    ) -> HephaestusError:
        """Return the error that this plugin does not work: one line that names it and its package.

        Parameters
        ----------
        problem : str
            A verb and what follows, such as ``cannot be loaded``.
        cause : BaseException, optional
            What was raised; quoted, and logged with its traceback.
        advice : str, optional
            What to do; by default to update or remove the package.
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
    """Find the entry points of a group in all installed packages; none is loaded.

    Parameters
    ----------
    group : str
        Such as ``hephaestus_build.commands``.

    Returns
    -------
    dict of str to Plugin
        By name, sorted. Of two with one name the first on ``sys.path`` counts.
    """
    from importlib.metadata import entry_points

    found: dict[str, Plugin] = {}
    for entry in entry_points(group=group):
        distribution = entry.dist.name if entry.dist is not None else "unknown"
        found.setdefault(entry.name, Plugin(group, entry.name, entry.value, distribution))
    return dict(sorted(found.items()))
