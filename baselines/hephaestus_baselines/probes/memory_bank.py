"""What patch features of quiet windows are like, and the distance of a patch from them.

Either Gaussians at each position (as in PaDiM), or the nearest of a sample of patches of all positions (as in
PatchCore, with a random sample in place of its coreset).

All arithmetic is in double precision. With few samples a covariance is mostly noise: it is shrunk towards a
multiple of the identity by as much as the samples suggest (Oracle Approximating Shrinkage).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hephaestus_baselines.data.samplers import derive_seed

#: Added to the variances, as a share of their mean: a feature that never changes has none.
_JITTER = 1e-6
#: Share of the variance of all positions together below which that of one position is not taken.
_FLOOR = 1e-3
#: Patches whose distances from all of a bank are in memory at a time.
_COMPARED = 1024


def choose_features(width: int, kept: int, seed: int) -> Tensor:
    """Return the features that are kept, int64 and ascending: `kept` of `width`, at random.

    Parameters
    ----------
    width : int
        Number of features of a patch.
    kept : int
        Number that are kept; all if there are no more.
    seed : int
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, width, kept))
    return torch.randperm(width, generator=generator)[:kept].sort().values


class PositionMoments:
    """Means and covariances of features at P positions, updated batch by batch (Chan's formula).

    The memory is that of P x D x D numbers, whatever the number of samples.

    Parameters
    ----------
    positions, width : int
        P and D.
    device : torch.device
    """

    def __init__(self, positions: int, width: int, device: torch.device | None = None) -> None:
        kind = {"dtype": torch.float64, "device": device}
        self.count = torch.zeros(positions, **kind)  # type: ignore[arg-type]
        self.mean = torch.zeros(positions, width, **kind)  # type: ignore[arg-type]
        self.scatter = torch.zeros(positions, width, width, **kind)  # type: ignore[arg-type]

    def update(self, features: Tensor, known: Tensor) -> None:
        """Add samples.

        Parameters
        ----------
        features : Tensor
            (B, P, D).
        known : Tensor
            bool (B, P): whether a sample counts at a position.
        """
        weight = known.to(torch.float64)
        added = weight.sum(0)
        total = self.count + added
        values = torch.where(known.unsqueeze(-1), features.to(torch.float64), 0.0)
        mean = values.sum(0) / added.clamp(min=1).unsqueeze(-1)
        around = (values - mean) * weight.unsqueeze(-1)
        shift = mean - self.mean
        share = (added / total.clamp(min=1)).unsqueeze(-1)
        self.scatter += torch.einsum("bpi,bpj->pij", around, around)
        self.scatter += torch.einsum("pi,pj->pij", shift * (self.count.unsqueeze(-1) * share), shift)
        self.mean += shift * share
        self.count = total

    def pooled(self) -> PositionMoments:
        """Return the moments of all positions together, with one position."""
        made = PositionMoments(1, self.mean.shape[1], self.mean.device)
        total = self.count.sum().clamp(min=1)
        made.count[0] = self.count.sum()
        made.mean[0] = (self.mean * self.count.unsqueeze(-1)).sum(0) / total
        shift = self.mean - made.mean
        between = torch.einsum("pi,pj->ij", shift * self.count.unsqueeze(-1), shift)
        made.scatter[0] = self.scatter.sum(0) + between
        return made


@dataclass(frozen=True)
class PatchGaussians:
    """One Gaussian at each position.

    Attributes
    ----------
    mean : Tensor
        float64 (P, D).
    factor : Tensor
        float64 (P, D, D): lower Cholesky factors of the covariances.
    """

    mean: Tensor
    factor: Tensor

    @classmethod
    def fit(cls, moments: PositionMoments) -> PatchGaussians:
        """Return the Gaussians of moments.

        Positions with less than two samples take the moments of all positions together.

        Raises
        ------
        ValueError
            If all positions together have less than two samples.
        """
        pooled = moments.pooled()
        if pooled.count[0] < 2:
            raise ValueError("a Gaussian needs two samples at least")
        few = moments.count < 2
        count = torch.where(few, pooled.count, moments.count)
        mean = torch.where(few.unsqueeze(-1), pooled.mean, moments.mean)
        scatter = torch.where(few.view(-1, 1, 1), pooled.scatter, moments.scatter)
        width = mean.shape[1]
        typical = pooled.scatter[0].diagonal().mean() / pooled.count[0]
        covariance = shrink_covariance(scatter / count.view(-1, 1, 1), count)
        level = covariance.diagonal(dim1=1, dim2=2).mean(-1)
        # where nothing ever changed, rounding must not look like an anomaly
        added = _JITTER * level + (_FLOOR * typical - level).clamp(min=0) + 1e-12
        covariance = covariance + added.view(-1, 1, 1) * torch.eye(
            width, dtype=mean.dtype, device=mean.device
        )
        return cls(mean, torch.linalg.cholesky(covariance))

    def distances(self, features: Tensor) -> Tensor:
        """Return the Mahalanobis distance of each patch, float64 (B, P), of features (B, P, D)."""
        around = (features.to(torch.float64) - self.mean).permute(1, 2, 0)
        solved = torch.linalg.solve_triangular(self.factor, around, upper=False)
        return solved.square().sum(1).sqrt().T


class PatchSample:
    """A random sample of the patches of all positions, updated batch by batch.

    Parameters
    ----------
    width : int
        Number of features D.
    most : int
        Number of patches that are kept.
    seed : int
    device : torch.device, optional
    """

    def __init__(self, width: int, most: int, seed: int, device: torch.device | None = None) -> None:
        self._most = most
        self._generator = torch.Generator().manual_seed(derive_seed(seed, width, most))
        self._patches = torch.empty(0, width, dtype=torch.float64, device=device)
        self._rank = torch.empty(0, dtype=torch.float64, device=device)

    @property
    def patches(self) -> Tensor:
        """The sample, float64 (K, D)."""
        return self._patches[self._rank.isfinite()]

    def update(self, features: Tensor, known: Tensor) -> None:
        """Add patches, (B, P, D), of which those in `known`, bool (B, P), count; the host does not wait."""
        rank = torch.rand(known.shape, generator=self._generator, dtype=torch.float64).to(known.device)
        # a selection of patches would wait for the number of them
        ranks = torch.cat([self._rank, torch.where(known, rank, torch.inf).flatten()])
        patches = torch.cat([self._patches, features.flatten(0, 1).to(torch.float64)])
        # those of the lowest random numbers are a sample of all patches so far
        kept = ranks.argsort(stable=True)[: self._most]
        self._patches, self._rank = patches[kept], ranks[kept]


@dataclass(frozen=True)
class NearestPatches:
    """Quiet patches, from the nearest of which a distance is measured.

    Attributes
    ----------
    patches : Tensor
        float64 (K, D), divided by `scale`.
    scale : Tensor
        float64 (D,): standard deviation of each feature.
    """

    patches: Tensor
    scale: Tensor

    @classmethod
    def fit(cls, sample: PatchSample) -> NearestPatches:
        """Return the patches of a sample.

        Raises
        ------
        ValueError
            If there are less than two.
        """
        patches = sample.patches
        if len(patches) < 2:
            raise ValueError("a bank needs two patches at least")
        deviation = patches.std(0, correction=0)
        typical = deviation.square().mean().sqrt()
        # where nothing ever changed, rounding must not look like an anomaly
        scale = deviation.clamp(min=float(typical) * _JITTER**0.5 + 1e-12)
        return cls(patches / scale, scale)

    def distances(self, features: Tensor) -> Tensor:
        """Return the distance of each patch from the nearest, float64 (B, P), of features (B, P, D)."""
        scaled = (features.to(torch.float64) / self.scale).flatten(0, 1)
        nearest = [torch.cdist(some, self.patches).min(1).values for some in scaled.split(_COMPARED)]
        return torch.cat(nearest).view(features.shape[:2])


def shrink_covariance(covariance: Tensor, count: Tensor) -> Tensor:
    """Return covariances, shrunk towards a multiple of the identity (Oracle Approximating Shrinkage).

    Chen, Wiesel, Eldar and Hero 2010, in the form in which scikit-learn has it.

    Parameters
    ----------
    covariance : Tensor
        float64 (P, D, D), of samples around their mean, divided by their number.
    count : Tensor
        float64 (P,): number of samples of each.
    """
    width = covariance.shape[-1]
    level = covariance.diagonal(dim1=1, dim2=2).mean(-1)
    power = covariance.square().mean((1, 2))
    spread = (count + 1) * (power - level.square() / width)
    shrinkage = torch.where(spread > 0, (power + level.square()) / spread, torch.ones_like(spread)).clamp(
        max=1
    )
    identity = torch.eye(width, dtype=covariance.dtype, device=covariance.device)
    kept = (1 - shrinkage).view(-1, 1, 1) * covariance
    return kept + (shrinkage * level).view(-1, 1, 1) * identity
