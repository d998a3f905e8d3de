"""Tells, while there is time, that a game has gone wrong.

A warning when it begins, none while it lasts: the numbers are in the metrics.
"""

import math
from collections.abc import Callable, Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from gan_jax.errors import warn

# Samples whose mean pairwise distance is below this share of the data's.
COLLAPSED = 0.1
# D is right about so many reals, and fakes, for so many lines of the log.
CERTAIN, LINES = 0.995, 10
# A player whose gradient's norm is below this learns nothing. (Of the losses
# named here alone: the gradient of a lazy penalty may well be 0.)
VANISHED = 1e-8
ADVERSARIAL = ('gen/loss_grad_norm', 'disc/loss_grad_norm')
# Iterations before which nothing is said: G begins with images that are all
# alike.
QUIET_ITERATIONS = 500


def diversity(images: Float[Array, 'n h w c']) -> Float[Array, '']:
  """The mean Euclidean distance of all pairs of different images."""
  n = len(images)
  flat = images.reshape(n, -1)
  flat -= flat.mean(0, keepdims=True)  # so that little is lost in float32
  squares = (flat**2).sum(1)
  products = jnp.matmul(flat, flat.T, precision='highest')
  between = squares[:, None] + squares[None, :] - 2 * products
  apart = jnp.where(jnp.eye(n, dtype=bool), 0.0, jnp.maximum(between, 0.0))
  return jnp.sqrt(apart).sum() / (n * (n - 1))


def _collapsed(means: Mapping[str, float]) -> str | None:
  share = means.get('gen/diversity', 1.0)
  if share < COLLAPSED:
    return (
      f'the samples are {share:.0%} as far apart as the data is '
      '(gen/diversity): G has collapsed'
    )
  return None


def _vanished(means: Mapping[str, float]) -> str | None:
  for name in ADVERSARIAL:
    if means.get(name, math.inf) < VANISHED:
      return f'{name} is {means[name]:.1e}: that player learns nothing any more'
  return None


def _won(means: Mapping[str, float]) -> str | None:
  sides = ('disc/real_accuracy', 'disc/fake_accuracy')
  if all(means.get(side, 0.0) > CERTAIN for side in sides):
    return f'D has told all fakes from reals for {LINES} lines: it has won'
  return None


# What may be wrong, and in how many lines in a row before it is told.
SIGNS: tuple[tuple[Callable[[Mapping[str, float]], str | None], int], ...] = (
  (_collapsed, 2),
  (_vanished, 1),
  (_won, LINES),
)


class HealthChecks:
  """Reads each line of the log, and warns.

  Args:
    quiet_until: Images up to which nothing is said; nor is anything up to
      `QUIET_ITERATIONS`, whichever comes later.
  """

  def __init__(self, quiet_until: int):
    self._quiet_until = quiet_until
    self._lasted = [0] * len(SIGNS)

  def read(
    self, iteration: int, images: int, means: Mapping[str, float]
  ) -> None:
    """Checks the means of a line that was logged after `iteration`."""
    quiet = iteration <= QUIET_ITERATIONS or images <= self._quiet_until
    for index, (sign, lines) in enumerate(SIGNS):
      message = None if quiet else sign(means)
      self._lasted[index] = self._lasted[index] + 1 if message else 0
      if self._lasted[index] == lines:
        warn(f'at {images:,} images, {message}')
