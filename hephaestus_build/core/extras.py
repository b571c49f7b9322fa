"""The extras of this package: what is missing is named with the command that adds it."""

from __future__ import annotations

from importlib.util import find_spec

from hephaestus_build.core.errors import HephaestusError

#: The packages that an extra cannot do without, and the command that adds it in a checkout.
_EXTRAS = {
    "flows": (("prefect", "uvicorn"), "make serve"),
    "baselines": (("torch", "lightning", "timm", "segmentation_models_pytorch"), "make benchmark"),
}


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
    packages, make = _EXTRAS[extra]
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise HephaestusError(
            f"{who} needs {missing[0]}, which is not installed; "
            f"`pip install 'hephaestus-build[{extra}]'` installs it (in a checkout: `{make}`)"
        )
