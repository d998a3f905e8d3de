"""Metrics of points from a known distribution."""

import math
import os
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from gan_jax.errors import UserError

# A sample is of high quality within this number of standard deviations of a
# mode.
WITHIN = 3.0
# Number of dimensions -> the number of histogram cells along each axis.
CELLS = {1: 100, 2: 25}
# The share of a density that is distributed over all cells, for a finite KL.
SMOOTHING = 0.01
# The number of points in optimal transport, whose time is cubic in it.
NUM_TRANSPORTED = 1000


class Modes(NamedTuple):
  """The modes that samples cover.

  Attributes:
    found: The number of modes with a sample of high quality.
    high_quality: The share of samples of high quality.
  """

  found: int
  high_quality: float


class Divergence(NamedTuple):
  """Divergences of histograms in nats: Jensen-Shannon, and KL(fake || real)."""

  jensen_shannon: float
  kl: float


def modes(
  fake: Float[np.ndarray, 'n d'],
  centres: Float[np.ndarray, 'k d'],
  std: float,
) -> Modes:
  """Counts the modes found, and the share of samples of high quality.

  Srivastava et al. 2017 (VEEGAN), section 4.1, with 2,500 samples: a sample is
  of high quality within 3 standard deviations of its nearest mode. (For genuine
  points in 2-D, the share is 98.9%.)
  """
  distances = np.linalg.norm(fake[:, None] - centres[None], axis=-1)
  is_high_quality = distances.min(1) <= WITHIN * std
  return Modes(
    len(np.unique(distances.argmin(1)[is_high_quality])),
    float(is_high_quality.mean()),
  )


def divergence(
  real: Float[np.ndarray, 'n d'], fake: Float[np.ndarray, 'm d'], limit: float
) -> Divergence:
  """Computes the Jensen-Shannon and Kullback-Leibler divergences of histograms.

  The grid covers -limit to limit on each axis; points outside are counted in
  its outermost cells. To keep KL finite, 1% of each density is distributed over
  all cells. Samples of one distribution differ too: two sets of 2,500 points of
  the grid of 25 by 0.007, and 0.03. NaN if a fake is not finite.
  """
  if not np.isfinite(fake).all():
    return Divergence(math.nan, math.nan)
  p, q = (_histogram(points, limit) for points in (real, fake))
  middle = (p + q) / 2
  shannon = (_kl(p, middle) + _kl(q, middle)) / 2
  p, q = ((1 - SMOOTHING) * x + SMOOTHING / x.size for x in (p, q))
  return Divergence(shannon, _kl(q, p))


def wasserstein(
  real: Float[np.ndarray, 'n d'], fake: Float[np.ndarray, 'm d']
) -> float:
  """Computes the exact Wasserstein-1 distance of two samples.

  Uses the first 1,000 points of each. Samples of the same distribution differ
  too: of the ring by 0.1, of the grid of 25 by 0.25 and more.
  """
  for backend in ('PYTORCH', 'JAX', 'CUPY', 'TENSORFLOW'):
    # These backends are not used, and importing them takes seconds.
    os.environ.setdefault(f'POT_BACKEND_DISABLE_{backend}', '1')
  import ot

  real, fake = (x[:NUM_TRANSPORTED].astype(np.float64) for x in (real, fake))
  if not np.isfinite(fake).all():
    return math.nan
  costs = ot.dist(real, fake, metric='euclidean')
  return float(ot.emd2([], [], costs))


def _histogram(
  points: Float[np.ndarray, 'n d'], limit: float
) -> Float[np.ndarray, '...']:
  """Computes the normalized histogram of points in 1-D or 2-D."""
  dim = points.shape[1]
  if dim not in CELLS:
    raise UserError(
      f'divergences need points with 1 or 2 coordinates, not {dim}'
    )
  edges = [np.linspace(-limit, limit, CELLS[dim] + 1)] * dim
  inside = np.clip(points, -limit, limit)
  return np.histogramdd(inside, edges)[0] / len(points)


def _kl(p: Float[np.ndarray, '...'], q: Float[np.ndarray, '...']) -> float:
  """Computes sum p log(p / q)."""
  positive = p > 0
  return float(np.sum(p[positive] * np.log(p[positive] / q[positive])))
