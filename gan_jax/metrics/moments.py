"""Means and covariances of features, gathered in any batches."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from gan_jax.errors import UserError


class Moments(NamedTuple):
  """What FID needs of a set of features, in float64.

  Attributes:
    count: Of examples.
    mean: Their mean.
    scatter: sum_i (x_i - mean) (x_i - mean)^T.
  """

  count: int
  mean: Float[np.ndarray, ' d']
  scatter: Float[np.ndarray, 'd d']

  def covariance(self) -> Float[np.ndarray, 'd d']:
    """scatter / (count - 1), without bias.

    Raises:
      UserError: Of fewer than 2 examples, and of features not finite.
    """
    if self.count < 2:
      raise UserError(
        f'a covariance of {self.count} example(s) was asked for: it takes 2, '
        'and FID customarily 50,000; give more'
      )
    if not np.isfinite(self.scatter).all():
      raise UserError(
        'some features are not finite: look for NaN in the images, or in the '
        'parameters of what made them'
      )
    return self.scatter / (self.count - 1)


def moments(features: np.ndarray) -> Moments:
  """The moments of features, [n, d]; n may be 0 (a process without any)."""
  features = np.asarray(features, np.float64)
  if features.ndim != 2:
    raise UserError(
      f'features are [n, d], not {list(features.shape)}: of images, '
      'gan_jax.evaluate(images, reference) takes them'
    )
  mean = features.sum(0) / max(len(features), 1)
  centred = features - mean
  return Moments(len(features), mean, centred.T @ centred)


def merge(a: Moments, b: Moments) -> Moments:
  """The moments of both sets together, as if computed at once.

  mean = mean_a + delta n_b / n, delta = mean_b - mean_a
  scatter = scatter_a + scatter_b + delta delta^T n_a n_b / n

  Chan, Golub and LeVeque 1979: without the cancellation of sums of squares.
  """
  count = a.count + b.count
  share = b.count / max(count, 1)
  delta = b.mean - a.mean
  between = np.outer(delta, delta) * (a.count * share)
  return Moments(count, a.mean + delta * share, a.scatter + b.scatter + between)
