"""The setting ``accept``: known absences of products, by frame, which are not reported as missing."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

from hephaestus_build.core.errors import UsageError
from hephaestus_build.core.frames import Frame, Pair, parse_day
from hephaestus_build.core.parsing import parse_json
from hephaestus_build.core.registry import OPTIONAL_VARIABLES

#: Products whose absence may be accepted; "interferogram" means both phase and coherence.
ACCEPTABLE_PRODUCTS = (
    "dem",
    "phase",
    "coherence",
    "interferogram",
    "preview",
    "era5",
    *OPTIONAL_VARIABLES,
)
#: Key that stands for every frame.
ANY_FRAME = "*"
ACCEPT_EXAMPLE = "{124D_04854_171313: [dem], '*': [preview]}"

#: Accepted absences by frame id or :data:`ANY_FRAME`: products, and pairs or dates in LiCSAR's spelling.
AcceptedAbsences = Mapping[str, tuple[str, ...]]


def parse_accepted_absences(value: Any) -> dict[str, tuple[str, ...]]:
    """Parse and normalize the setting, given as a mapping or as JSON text.

    Raises
    ------
    UsageError
        If it is not such a mapping, or a frame or product is unknown; the message suggests the nearest.
    """
    if isinstance(value, str):
        try:
            value = parse_json(value, limit=1 << 20)
        except ValueError as error:
            raise _setting_error(f"it is not a JSON object ({error})") from None
    if not isinstance(value, Mapping):
        raise _setting_error("it must be a mapping of frames to lists of products")
    accept: dict[str, tuple[str, ...]] = {}
    for key, names in value.items():
        if not isinstance(names, list | tuple):
            names = [names]
        frame = _parse_frame_key(key)
        accept[frame] = (*accept.get(frame, ()), *map(_parse_product, names))
    return accept


def is_absence_accepted(accept: AcceptedAbsences, frame: Frame, names: Iterable[str]) -> bool:
    """Return whether the absence of a product is accepted.

    Parameters
    ----------
    accept : mapping
        The setting.
    frame : Frame
        Frame of the product.
    names : iterable of str
        Names that refer to the product, such as ``phase``, ``interferogram`` and ``20160909_20160921``.
    """
    chosen = {*accept.get(frame.id, ()), *accept.get(ANY_FRAME, ())}
    return not chosen.isdisjoint(names)


def _parse_frame_key(key: Any) -> str:
    text = str(key).strip()[:80]
    if text == ANY_FRAME:
        return ANY_FRAME
    try:
        return Frame.parse(text).id
    except UsageError:
        from hephaestus_build.core.registry import published_frames

        raise _setting_error(
            f"{text!r} is neither a frame id nor {ANY_FRAME!r}{_nearest(text.upper(), published_frames())}"
        ) from None


def _parse_product(name: Any) -> str:
    # YAML reads 20160909_20160921 as one integer, and 2016-09-09 as a date
    text = f"{name:%Y%m%d}" if isinstance(name, date) else str(name).strip()[:80]
    if isinstance(name, int) and len(text) == 16:
        text = f"{text[:8]}_{text[8:]}"
    if text.lower() in ACCEPTABLE_PRODUCTS:
        return text.lower()
    try:
        return Pair.parse(text).name if "_" in text else f"{parse_day(text):%Y%m%d}"
    except ValueError:
        raise _setting_error(
            f"{text!r} is not a product{_nearest(text.lower(), ACCEPTABLE_PRODUCTS)}: use "
            f"{', '.join(ACCEPTABLE_PRODUCTS)}, "
            "a pair such as 20160909_20160921, or a date of ERA5"
        ) from None


def _nearest(text: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(text, known, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _setting_error(what: str) -> UsageError:
    return UsageError(f"setting accept: {what}; write it as accept: {ACCEPT_EXAMPLE}")
