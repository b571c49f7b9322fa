"""Logistic regression with an L2 penalty, of standardised features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit

#: Penalties that are tried, as weights of half the squared coefficients beside the mean loss of a window.
PENALTIES: tuple[float, ...] = (100.0, 10.0, 1.0, 0.1, 0.01, 0.001, 0.0001)


@dataclass(frozen=True)
class FeatureScale:
    """Means and deviations of training features.

    Attributes
    ----------
    mean, deviation : numpy.ndarray
        float64 (F,); the deviation of a constant feature is 1.
    """

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, features: npt.NDArray[np.float32]) -> FeatureScale:
        """Return those of features (N, F)."""
        deviation = features.std(axis=0, dtype="f8")
        mean = features.mean(axis=0, dtype="f8")
        # constant to the precision of float32
        constant = deviation <= 1e-6 * np.maximum(1e-6, np.abs(mean))
        return cls(mean, np.where(constant, 1.0, deviation))

    def apply(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return standardised features, float64 (N, F)."""
        return (features - self.mean) / self.deviation


@dataclass(frozen=True)
class LogisticRegression:
    """A fitted regression.

    Attributes
    ----------
    coefficients : numpy.ndarray
        float64 (F,).
    intercept : float
    """

    coefficients: np.ndarray
    intercept: float

    def predict(self, standardised: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Return the probability of each row, float32 (N,)."""
        return expit(standardised @ self.coefficients + self.intercept).astype("f4")


def fit_logistic_regression(
    standardised: npt.NDArray[np.float64],
    label: npt.NDArray[Any],
    penalty: float,
    start: LogisticRegression | None = None,
) -> LogisticRegression:
    """Return the regression with the least mean loss and penalty; there is one, since both are convex.

    Parameters
    ----------
    standardised : numpy.ndarray
        float64 (N, F).
    label : numpy.ndarray
        (N,), 0 or 1.
    penalty : float
        Weight of half the squared coefficients; the intercept has none.
    start : LogisticRegression, optional
        Where the search begins.
    """
    truth = np.asarray(label, "f8")
    count, width = standardised.shape

    def loss(values: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        coefficients, intercept = values[:-1], values[-1]
        logits = standardised @ coefficients + intercept
        # log(1 + exp(x)) - y x, without overflow
        total = float((np.logaddexp(0, logits) - truth * logits).mean())
        slope = (expit(logits) - truth) / count
        gradient = np.concatenate([standardised.T @ slope + penalty * coefficients, [slope.sum()]])
        return total + 0.5 * penalty * float(coefficients @ coefficients), gradient

    # the share of positives alone: where all coefficients are 0
    share = np.clip(truth.mean(), 0.5 / (count + 1), 1 - 0.5 / (count + 1))
    first = np.append(np.zeros(width), np.log(share / (1 - share)))
    if start is not None:
        first = np.append(start.coefficients, start.intercept)
    found = minimize(
        loss, first, jac=True, method="L-BFGS-B", options={"maxiter": 500, "gtol": 1e-7, "ftol": 1e-12}
    )
    return LogisticRegression(found.x[:-1], float(found.x[-1]))
