"""Fréchet distance of two sets of features (FID)."""

import numpy as np
from jaxtyping import Float

from gan_jax.errors import UserError
from gan_jax.metrics.moments import Moments, moments


def fid(
  real: Float[np.ndarray, 'n d'] | Moments,
  fake: Float[np.ndarray, 'm e'] | Moments,
) -> float:
  """Computes the Fréchet distance of Gaussians with the sets' moments (FID).

  |mu_r - mu_f|^2 + tr S_r + tr S_f - 2 tr (S_r S_f)^(1/2)

  Heusel et al. 2017, customarily with 50,000 fakes (FID-50k) and all reals;
  fewer examples give larger values, which are not comparable. The covariances
  may have any rank, so there may be fewer examples than features.

  Args:
    real, fake: Features [n, d] of one network, or their moments.

  Raises:
    UserError: A set has fewer than 2 examples, or is not finite.
  """
  real, fake = (
    x if isinstance(x, Moments) else moments(x) for x in (real, fake)
  )
  if real.mean.shape != fake.mean.shape:
    raise UserError(
      f'cannot compare features of {len(real.mean)} and {len(fake.mean)} '
      'dimensions: they are of two networks'
    )
  covariances = real.covariance(), fake.covariance()
  (values_r, vectors_r), (values_f, vectors_f) = map(_spectrum, covariances)
  # tr (S_r S_f)^(1/2) is the sum of the singular values of S_r^(1/2) S_f^(1/2).
  # They are not computed as the roots of the eigenvalues of S_r S_f, because
  # the square root turns a rounding error of 1e-16 into one of 1e-8.
  product = np.sqrt(values_r)[:, None] * (vectors_r.T @ vectors_f)
  product *= np.sqrt(values_f)
  common = np.linalg.svd(product, compute_uv=False).sum()
  mean_distance = ((real.mean - fake.mean) ** 2).sum()
  value = mean_distance + sum(map(np.trace, covariances)) - 2 * common
  return max(float(value), 0.0)  # rounding can make it negative


def _spectrum(
  covariance: Float[np.ndarray, 'd d'],
) -> tuple[Float[np.ndarray, ' r'], Float[np.ndarray, 'd r']]:
  """Returns the eigenvalues above the rounding error, with eigenvectors."""
  values, vectors = np.linalg.eigh(covariance)
  floor = len(values) * np.finfo(np.float64).eps * max(values.max(), 0.0)
  return values[values > floor], vectors[:, values > floor]
