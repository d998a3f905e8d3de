"""Maximum mean discrepancy of two sets of features (KID, CMMD)."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gan_jax.errors import UserError

# Of CMMD: the width of the kernel, and a factor that makes numbers readable.
CMMD_SIGMA, CMMD_SCALE = 10, 1000
# The rows whose distances are in memory together.
BLOCK = 4096


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


def cmmd(
  real: Float[np.ndarray, 'n d'],
  fake: Float[np.ndarray, 'm d'],
  block: int = BLOCK,
) -> float:
  """Computes the squared MMD of embeddings with a Gaussian kernel (CMMD).

  1000 (mean_{i, j} k(x_i, x_j) + mean_{i, j} k(y_i, y_j)
        - 2 mean_{i, j} k(x_i, y_j)),  k(x, y) = exp(-|x - y|^2 / (2 10^2))

  Jayasumana et al. 2024, section 4, for CLIP's embeddings of unit length. The
  estimator is the biased one of their code, with i = j: fewer examples give
  larger values.

  Args:
    real, fake: Embeddings [n, d].
    block: The rows whose distances are in memory together.

  Raises:
    UserError: A set is empty.
  """
  if not (len(real) and len(fake)):
    raise UserError(
      f'{len(real)} real and {len(fake)} fake examples: pass at least one of '
      'each'
    )
  mean = np.concatenate([real, fake]).mean(0, dtype=np.float64)
  x, y = (
    [
      jnp.asarray(features[i : i + block] - mean, jnp.float32)
      for i in range(0, len(features), block)
    ]
    for features in (real, fake)
  )
  value = _mean_kernel(x, x) + _mean_kernel(y, y) - 2 * _mean_kernel(x, y)
  return CMMD_SCALE * value


def _mean_kernel(
  x: list[Float[Array, '_ d']], y: list[Float[Array, '_ d']]
) -> float:
  """Returns the mean of k - 1 over all pairs.

  The difference from 1, which cancels in the MMD, keeps the digits that float32
  would lose: the squared distances of unit vectors are small beside 2 10^2.
  """
  total = 0.0
  for a, b in itertools.product(x, y):
    total += np.asarray(_row_sums(a, b), np.float64).sum()
  return float(total / (sum(map(len, x)) * sum(map(len, y))))


@jax.jit
def _row_sums(
  a: Float[Array, 'n d'], b: Float[Array, 'm d']
) -> Float[Array, ' n']:
  """Sums k - 1 for each row of a."""
  squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None, :]
  squares -= 2 * jnp.matmul(a, b.T, precision='highest')
  kernel = jnp.expm1(jnp.maximum(squares, 0) / (-2 * CMMD_SIGMA**2))
  return kernel.sum(1)
