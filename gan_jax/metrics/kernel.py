"""Maximum mean discrepancy of two sets of features."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from gan_jax.errors import UserError


class Kid(NamedTuple):
  """Over the subsets: the mean, and the standard deviation."""

  mean: float
  std: float


def kid(
  real: Float[np.ndarray, 'n d'],
  fake: Float[np.ndarray, 'm d'],
  subsets: int = 100,
  subset_size: int = 1000,
  seed: int = 2020,
) -> Kid:
  """Kernel distance (KID): the squared MMD without bias, over random subsets.

  MMD^2 = sum_{i != j} (k(x_i, x_j) + k(y_i, y_j)) / (s (s - 1))
          - 2 sum_{i, j} k(x_i, y_j) / s^2,  k(x, y) = (x.y / d + 1)^3

  Bińkowski et al. 2018. Sets that are alike give
  values around 0, also below it. Customarily 100 subsets of 1,000 (the
  paper's), whose draws are torch-fidelity's: equal seeds, equal subsets.

  Args:
    real, fake: Features [n, d].
    subsets, subset_size: s examples are drawn of each set, without
      replacement, so many times.
    seed: Of the draws.

  Raises:
    UserError: A subset is larger than a set, or smaller than 2.
  """
  if not 2 <= subset_size <= min(len(real), len(fake)):
    raise UserError(
      f'subset_size={subset_size} must be from 2 to the examples there are, '
      f'{len(real)} real and {len(fake)} fake: give more, or a smaller one'
    )
  draw = np.random.RandomState(seed)
  values = []
  for _ in range(subsets):
    x, y = (
      features[draw.choice(len(features), subset_size, replace=False)]
      for features in (real, fake)
    )
    values.append(_mmd2(x.astype(np.float64), y.astype(np.float64)))
  return Kid(float(np.mean(values)), float(np.std(values)))


def _mmd2(
  x: Float[np.ndarray, 's d'], y: Float[np.ndarray, 's d']
) -> np.float64:
  s, d = x.shape

  def kernel(a, b):
    base = a @ b.T / d + 1
    return base * base * base  # ** 3 takes longer than the product above

  # Off the diagonal.
  within = lambda k: (k.sum() - np.trace(k)) / (s * (s - 1))
  return within(kernel(x, x)) + within(kernel(y, y)) - 2 * kernel(x, y).mean()
