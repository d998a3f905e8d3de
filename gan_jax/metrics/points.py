"""How well points follow a distribution that can be seen."""

import math
import os
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from gan_jax.errors import UserError

# A sample is of high quality if it is within so many deviations of a mode.
WITHIN = 3.0
# Cells of the grid on which densities are compared, each way.
CELLS = {1: 100, 2: 25}
# What of a density is strategy over all cells, for KL.
SPREAD = 0.01
# Optimal transport takes the cube of their number.
TRANSPORTED = 1000


class Modes(NamedTuple):
  """Which modes samples are of.

  Attributes:
    found: Modes with a sample of high quality.
    high_quality: The share of samples that are.
  """

  found: int
  high_quality: float


class Divergence(NamedTuple):
  """Of densities on a grid, in nats: Jensen-Shannon, and KL(fake || real)."""

  jensen_shannon: float
  kl: float


def modes(
  fake: Float[np.ndarray, 'n d'],
  centres: Float[np.ndarray, 'k d'],
  std: float,
) -> Modes:
  """Modes found, and the share of samples of high quality.

  Srivastava et al. 2017 (VEEGAN), section 4.1, of 2,500 samples: one is of high
  quality if it lies within 3 deviations of the mode nearest to it. (Of points
  that are genuine, and of 2 coordinates, 98.9% do.)
  """
  distances = np.linalg.norm(fake[:, None] - centres[None], axis=-1)
  good = distances.min(1) <= WITHIN * std
  return Modes(len(np.unique(distances.argmin(1)[good])), float(good.mean()))


def divergence(
  real: Float[np.ndarray, 'n d'], fake: Float[np.ndarray, 'm d'], limit: float
) -> Divergence:
  """Jensen-Shannon and Kullback-Leibler divergences of histograms.

  On a grid from -limit to limit, each way, points beyond it being counted at
  its edge. For KL to be finite, a hundredth of both is strategy over all cells.
  (Genuine points differ too: 2,500 and 2,500 of the grid of 25 by 0.007, and
  0.03.)
  NaN where a fake is not finite.
  """
  if not np.isfinite(fake).all():
    return Divergence(math.nan, math.nan)
  p, q = (_histogram(points, limit) for points in (real, fake))
  middle = (p + q) / 2
  shannon = (_kl(p, middle) + _kl(q, middle)) / 2
  p, q = ((1 - SPREAD) * x + SPREAD / x.size for x in (p, q))
  return Divergence(shannon, _kl(q, p))


def wasserstein(
  real: Float[np.ndarray, 'n d'], fake: Float[np.ndarray, 'm d']
) -> float:
  """The exact Wasserstein-1 distance of two samples, by optimal transport.

  Of the first 1,000 of each. Two samples of one distribution are apart too: of
  the ring by 0.1, of the grid of 25 by 0.25 and more.
  """
  for backend in ('PYTORCH', 'JAX', 'CUPY', 'TENSORFLOW'):
    # None is needed, and to look for them takes seconds.
    os.environ.setdefault(f'POT_BACKEND_DISABLE_{backend}', '1')
  import ot

  real, fake = (x[:TRANSPORTED].astype(np.float64) for x in (real, fake))
  if not np.isfinite(fake).all():
    return math.nan
  costs = ot.dist(real, fake, metric='euclidean')
  return float(ot.emd2([], [], costs))


def _histogram(
  points: Float[np.ndarray, 'n d'], limit: float
) -> Float[np.ndarray, '...']:
  dim = points.shape[1]
  if dim not in CELLS:
    raise UserError(f'divergences are of 1 or 2 coordinates, not of {dim}')
  edges = [np.linspace(-limit, limit, CELLS[dim] + 1)] * dim
  inside = np.clip(points, -limit, limit)
  return np.histogramdd(inside, edges)[0] / len(points)


def _kl(p: Float[np.ndarray, '...'], q: Float[np.ndarray, '...']) -> float:
  there = p > 0
  return float(np.sum(p[there] * np.log(p[there] / q[there])))
