"""Means and covariances of features, accumulated over batches."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from gan_jax.errors import UserError


class Moments(NamedTuple):
  """The moments of a set of features, in float64.

  Attributes:
    count: The number of examples.
    mean: The mean of the features.
    scatter: sum_i (x_i - mean) (x_i - mean)^T.
  """

  count: int
  mean: Float[np.ndarray, ' d']
  scatter: Float[np.ndarray, 'd d']

  def covariance(self) -> Float[np.ndarray, 'd d']:
    """Computes the unbiased covariance, scatter / (count - 1).

    Raises:
      UserError: There are fewer than 2 examples, or features are not finite.
    """
    if self.count < 2:
      raise UserError(
        f'cannot compute the covariance of {self.count} example(s): pass at '
        'least 2 (FID customarily uses 50,000)'
      )
    if not np.isfinite(self.scatter).all():
      raise UserError(
        'some features are not finite: check the images, and the parameters '
        'of the generator, for NaN'
      )
    return self.scatter / (self.count - 1)


def moments(features: np.ndarray) -> Moments:
  """Computes the moments of features [n, d]; n may be 0."""
  features = np.asarray(features, np.float64)
  if features.ndim != 2:
    raise UserError(
      f'features must be [n, d], not {list(features.shape)}: to compare '
      'images, call gan_jax.evaluate(images, reference)'
    )
  mean = features.sum(0) / max(len(features), 1)
  centred = features - mean
  return Moments(len(features), mean, centred.T @ centred)


def merge(a: Moments, b: Moments) -> Moments:
  """Merges the moments of two sets into those of their union.

  mean = mean_a + delta n_b / n, delta = mean_b - mean_a
  scatter = scatter_a + scatter_b + delta delta^T n_a n_b / n

  Chan, Golub and LeVeque 1979, without the cancellation of sums of squares.
  """
  count = a.count + b.count
  share = b.count / max(count, 1)
  delta = b.mean - a.mean
  between = np.outer(delta, delta) * (a.count * share)
  return Moments(count, a.mean + delta * share, a.scatter + b.scatter + between)
