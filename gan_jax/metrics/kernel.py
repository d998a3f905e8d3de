"""Maximum mean discrepancy of two sets of features (KID)."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from gan_jax.errors import UserError


class Kid(NamedTuple):
  """The mean and the standard deviation over the subsets."""

  mean: float
  std: float


def kid(
  real: Float[np.ndarray, 'n d'],
  fake: Float[np.ndarray, 'm d'],
  subsets: int = 100,
  subset_size: int = 1000,
  seed: int = 2020,
) -> Kid:
  """Computes the kernel distance (KID): the unbiased squared MMD, over subsets.

  MMD^2 = sum_{i != j} (k(x_i, x_j) + k(y_i, y_j)) / (s (s - 1))
          - 2 sum_{i, j} k(x_i, y_j) / s^2,  k(x, y) = (x.y / d + 1)^3

  Bińkowski et al. 2018, customarily with 100 subsets of 1,000. Equal
  distributions give values around 0, also negative ones. The same seed draws
  the same subsets as torch-fidelity.

  Args:
    real, fake: Features [n, d].
    subsets: The number of random subsets.
    subset_size: The number s of examples drawn from each set, without
      replacement.
    seed: The seed of the subsets.

  Raises:
    UserError: A subset is larger than a set, or smaller than 2.
  """
  if not 2 <= subset_size <= min(len(real), len(fake)):
    raise UserError(
      f'subset_size={subset_size} must be between 2 and the size of each set, '
      f'{len(real)} real and {len(fake)} fake: pass more examples, or reduce it'
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
  """Computes the unbiased squared MMD of two sets of s examples."""
  s, d = x.shape

  def kernel(a, b):
    base = a @ b.T / d + 1
    return base * base * base  # ** 3 is slower than the matrix product

  off_diagonal_mean = lambda k: (k.sum() - np.trace(k)) / (s * (s - 1))
  within = off_diagonal_mean(kernel(x, x)) + off_diagonal_mean(kernel(y, y))
  return within - 2 * kernel(x, y).mean()
