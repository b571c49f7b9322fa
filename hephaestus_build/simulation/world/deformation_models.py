"""Analytical models of surface displacement in an elastic half-space.

Functions of a source take east and north distances from the source in metres and return the surface
displacement (east, north, up), stacked along a first axis of length 3, in metres.

- :func:`mogi`: a point source of volume change (Mogi 1958).
- :func:`okada`: a rectangular dislocation that slips (earthquake) or opens (dyke, sill) (Okada 1985).
- :func:`spheroid`: three small, mutually perpendicular opening dislocations whose potencies set the shape
  (the point form of a compound dislocation model).
- :func:`sagging_flank`: a smooth subsiding patch; not an elastic source.

References
----------
Mogi, K. (1958), Bull. Earthq. Res. Inst. 36, 99-134.
Okada, Y. (1985), Bull. Seismol. Soc. Am. 75(4), 1135-1154.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

#: Poisson's ratio of the half-space.
POISSON_RATIO = 0.25
#: Length below which a term of Okada's equations counts as singular, metres.
_TINY = 1e-12
_MU_RATIO = 1 - 2 * POISSON_RATIO  # mu / (lambda + mu)


def mogi(east: npt.NDArray[Any], north: npt.NDArray[Any], *, depth: float, volume: float) -> npt.NDArray[Any]:
    """Return the displacement above a small sphere (Mogi 1958).

    Parameters
    ----------
    east, north : numpy.ndarray
        Distance from the point above the source, metres.
    depth : float
        Depth of the source, metres, positive.
    volume : float
        Volume change of the sphere, cubic metres.

    Returns
    -------
    numpy.ndarray
        Displacement (east, north, up), (3, ...), metres.
    """
    scale = (1 - POISSON_RATIO) * volume / np.pi / (east**2 + north**2 + depth**2) ** 1.5
    return np.stack([east * scale, north * scale, depth * scale])


def okada(
    east: npt.NDArray[Any],
    north: npt.NDArray[Any],
    *,
    depth: float,
    length: float,
    width: float,
    strike: float,
    dip: float,
    strike_slip: float = 0.0,
    dip_slip: float = 0.0,
    opening: float = 0.0,
) -> npt.NDArray[Any]:
    """Return the displacement above a rectangular dislocation (Okada 1985).

    Parameters
    ----------
    east, north : numpy.ndarray
        Distance from the point above the rectangle's centre, metres.
    depth : float
        Depth of the rectangle's centre, metres; its top must stay below the surface.
    length, width : float
        Size along strike and down dip, metres.
    strike, dip : float
        Degrees: strike clockwise from north, dip to the right of the strike direction.
    strike_slip, dip_slip, opening : float
        Components of the dislocation, metres; left-lateral, reverse and tensile are positive.

    Returns
    -------
    numpy.ndarray
        Displacement (east, north, up), (3, ...), metres.

    Raises
    ------
    ValueError
        If the rectangle reaches the surface.
    """
    sine, cosine = _sin_cos(dip)
    bottom = depth + width / 2 * sine
    if depth - width / 2 * sine <= 0:
        raise ValueError(f"a dislocation {width} m wide at {depth} m depth reaches the surface")
    along, across = np.sin(np.radians(strike)), np.cos(np.radians(strike))
    # Okada's axes: origin above one end of the lower edge, x along strike, y to the left of it (up dip)
    x = along * east + across * north + length / 2
    y = -across * east + along * north + width / 2 * cosine
    p = y * cosine + bottom * sine
    q = y * sine - bottom * cosine
    total = np.zeros((3, *np.broadcast(x, y).shape))
    # the surface integral over the rectangle, from its four corners (Chinnery's notation)
    for sign, xi, eta in (
        (1, x, p), (-1, x, p - width), (-1, x - length, p), (1, x - length, p - width),
    ):  # fmt: skip
        total += sign * _okada_corner(xi, eta, q, sine, cosine, (strike_slip, dip_slip, opening))
    total /= 2 * np.pi
    return np.stack([along * total[0] - across * total[1], across * total[0] + along * total[1], total[2]])


def spheroid(
    east: npt.NDArray[Any], north: npt.NDArray[Any], *, depth: float, volume: float, elongation: float
) -> npt.NDArray[Any]:
    """Return the displacement above a small spheroid with a vertical axis.

    Parameters
    ----------
    east, north : numpy.ndarray
        Distance from the point above the source, metres.
    depth : float
        Depth of the source, metres, positive.
    volume : float
        Sum of the three potencies (area times opening), cubic metres.
    elongation : float
        Potency of each vertical opening divided by that of the horizontal one: 1 is a sphere, more is
        prolate (a pipe), less is oblate (a lens).

    Returns
    -------
    numpy.ndarray
        Displacement (east, north, up), (3, ...), metres.
    """
    level = volume / (1 + 2 * elongation)
    side = depth / 25  # small compared with the depth, so that only the potency matters
    shape = {"depth": depth, "length": side, "width": side}
    total = okada(east, north, **shape, strike=0, dip=0, opening=level / side**2)
    for strike in (0, 90):
        total += okada(east, north, **shape, strike=strike, dip=90, opening=elongation * level / side**2)
    return total


def sagging_flank(
    east: npt.NDArray[Any], north: npt.NDArray[Any], *, radius: float, azimuth: float, drop: float
) -> npt.NDArray[Any]:
    """Return the displacement of a sagging flank: a Gaussian patch that moves down and downhill.

    This is not a solution for an elastic source.

    Parameters
    ----------
    east, north : numpy.ndarray
        Distance from the centre of the patch, metres.
    radius : float
        Standard deviation of the Gaussian, metres.
    azimuth : float
        Downhill direction, degrees clockwise from north.
    drop : float
        Subsidence at the centre, metres.

    Returns
    -------
    numpy.ndarray
        Displacement (east, north, up), (3, ...), metres.
    """
    patch = drop * np.exp(-(east**2 + north**2) / (2 * radius**2))
    return np.stack(
        [0.8 * np.sin(np.radians(azimuth)) * patch, 0.8 * np.cos(np.radians(azimuth)) * patch, -patch]
    )


def line_of_sight(incidence: npt.NDArray[Any] | float, heading: float) -> npt.NDArray[np.float32]:
    """Return the unit vector from the ground to a right-looking satellite.

    Parameters
    ----------
    incidence : numpy.ndarray or float
        Incidence angle, degrees from the vertical.
    heading : float
        Flight direction, degrees clockwise from north.

    Returns
    -------
    numpy.ndarray
        Components (east, north, up), float32, (3, ...).
    """
    slant, flight = np.radians(incidence), np.radians(heading)
    return np.stack([-np.sin(slant) * np.cos(flight), np.sin(slant) * np.sin(flight), np.cos(slant)]).astype(
        np.float32
    )


def _sin_cos(dip: float) -> tuple[float, float]:
    """Return sine and cosine of `dip`, exactly ±1 and 0 for a vertical plane, which has its own formulas."""
    cosine = float(np.cos(np.radians(dip)))
    return (
        (float(np.copysign(1.0, dip)), 0.0)
        if abs(cosine) < 1e-9
        else (float(np.sin(np.radians(dip))), cosine)
    )


def _zero_where(singular: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return `values` with 0 where a term is singular; changes `values`."""
    values[singular] = 0.0
    return values


def _okada_corner(
    xi: np.ndarray,
    eta: np.ndarray,
    q: np.ndarray,
    sine: float,
    cosine: float,
    slip: tuple[float, float, float],
) -> np.ndarray:
    """Return equations 25 to 30 of Okada (1985) at one corner, times 2 pi."""
    strike_slip, dip_slip, opening = slip
    r = np.sqrt(xi**2 + eta**2 + q**2)
    y = eta * cosine + q * sine
    d = eta * sine - q * cosine
    r_d = r + d
    with np.errstate(divide="ignore", invalid="ignore"):
        # singular terms on the extensions of the rectangle's edges are set to 0, as Okada prescribes
        r_eta = _zero_where(np.abs(r + eta) < _TINY, 1 / (r * (r + eta)))
        r_xi = _zero_where(np.abs(r + xi) < _TINY, 1 / (r * (r + xi))) if dip_slip or opening else r_eta
        log_eta = np.log(r + eta)
        if (beyond := r + eta < _TINY).any():
            log_eta[beyond] = -np.log((r - eta)[beyond])
        angle = _zero_where(np.abs(q) < _TINY, np.arctan(xi * eta / (q * r)))
        if cosine:
            x = np.hypot(xi, q)
            top = eta * (x + q * cosine) + x * (r + x) * sine
            i5 = _zero_where(
                np.abs(xi) < _TINY, _MU_RATIO * 2 / cosine * np.arctan(top / (xi * (r + x) * cosine))
            )
            i4 = _MU_RATIO / cosine * (np.log(r_d) - sine * log_eta)
            i3 = _MU_RATIO * (y / (cosine * r_d) - log_eta) + sine / cosine * i4
            i1 = -_MU_RATIO * xi / (cosine * r_d) - sine / cosine * i5
        else:
            i5 = -_MU_RATIO * xi * sine / r_d
            i4 = -_MU_RATIO * q / r_d
            i3 = _MU_RATIO / 2 * (eta / r_d + y * q / r_d**2 - log_eta)
            i1 = -_MU_RATIO / 2 * xi * q / r_d**2
    i2 = -_MU_RATIO * log_eta - i3
    total = np.zeros((3, *r.shape))
    if strike_slip:
        total -= strike_slip * np.stack(
            [
                xi * q * r_eta + angle + i1 * sine,
                y * q * r_eta + q * cosine * r * r_eta + i2 * sine,
                d * q * r_eta + q * sine * r * r_eta + i4 * sine,
            ]
        )
    if dip_slip:
        total -= dip_slip * np.stack(
            [
                q / r - i3 * sine * cosine,
                y * q * r_xi + cosine * angle - i1 * sine * cosine,
                d * q * r_xi + sine * angle - i5 * sine * cosine,
            ]
        )
    if opening:
        bracket = xi * q * r_eta - angle
        total += opening * np.stack(
            [
                q**2 * r_eta - i3 * sine**2,
                -d * q * r_xi - sine * bracket - i1 * sine**2,
                y * q * r_xi + cosine * bracket - i5 * sine**2,
            ]
        )
    return total
