"""Learning-rate schedules."""

from __future__ import annotations

import math

#: Fraction of all steps in which the learning rate of a cosine schedule rises.
_WARMUP_SHARE = 0.05


def cosine_schedule(step: int, steps: int) -> float:
    """Return the learning-rate factor at a step: linear warm-up in the first twentieth, then cosine to 0."""
    rise = max(1.0, _WARMUP_SHARE * steps)
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1.0, steps - rise))))
