"""Health checks: warns early of a collapse, a dead player or a winning D.

A warning is printed when a problem begins, and not again while it lasts: the
numbers are in the metrics.
"""

import math
from collections.abc import Callable, Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from gan_jax.errors import warn

# G has collapsed if the mean distance between samples is below this share of
# the data's.
COLLAPSED = 0.1
# D has won if its accuracies exceed this in so many lines of the log.
CERTAIN, WON_LINES = 0.995, 10
# A player with a smaller gradient norm learns nothing. Only these losses count:
# the gradient of a lazy penalty may well be 0.
VANISHED = 1e-8
ADVERSARIAL = ('gen/loss_grad_norm', 'disc/loss_grad_norm')
# No warning in the first iterations: the images of a new G are all alike.
QUIET_ITERATIONS = 500


def diversity(images: Float[Array, 'n h w c']) -> Float[Array, '']:
  """The mean Euclidean distance between two different images."""
  n = len(images)
  flat = images.reshape(n, -1)
  flat -= flat.mean(0, keepdims=True)  # keeps precision in float32
  squares = (flat**2).sum(1)
  products = jnp.matmul(flat, flat.T, precision='highest')
  between = squares[:, None] + squares[None, :] - 2 * products
  apart = jnp.where(jnp.eye(n, dtype=bool), 0.0, jnp.maximum(between, 0.0))
  return jnp.sqrt(apart).sum() / (n * (n - 1))


def _collapsed(means: Mapping[str, float]) -> str | None:
  share = means.get('gen/diversity', 1.0)
  if share < COLLAPSED:
    return (
      f'G has collapsed: the distance between its samples is {share:.0%} of '
      "the data's (gen/diversity)"
    )
  return None


def _vanished(means: Mapping[str, float]) -> str | None:
  for name in ADVERSARIAL:
    if means.get(name, math.inf) < VANISHED:
      player = 'G' if name.startswith('gen') else 'D'
      return f'{name} is {means[name]:.1e}: {player} no longer learns'
  return None


def _won(means: Mapping[str, float]) -> str | None:
  accuracies = ('disc/real_accuracy', 'disc/fake_accuracy')
  if all(means.get(name, 0.0) > CERTAIN for name in accuracies):
    return f'D has won: it told all fakes from reals in {WON_LINES} lines'
  return None


# Each check, and the number of lines in a row before it warns.
CHECKS: tuple[tuple[Callable[[Mapping[str, float]], str | None], int], ...] = (
  (_collapsed, 2),
  (_vanished, 1),
  (_won, WON_LINES),
)


class HealthChecks:
  """Reads the lines of the log, and warns.

  Args:
    quiet_until: No warning up to this number of images, nor in the first
      QUIET_ITERATIONS.
  """

  def __init__(self, quiet_until: int):
    self._quiet_until = quiet_until
    self._lines = [0] * len(CHECKS)

  def read(self, step: int, images: int, means: Mapping[str, float]) -> None:
    """Checks the means of the line at `step`."""
    quiet = step <= QUIET_ITERATIONS or images <= self._quiet_until
    for index, (check, lines) in enumerate(CHECKS):
      message = None if quiet else check(means)
      self._lines[index] = self._lines[index] + 1 if message else 0
      if self._lines[index] == lines:
        warn(f'at {images:,} images, {message}')
