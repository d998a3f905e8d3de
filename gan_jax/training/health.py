"""Health checks: warnings about mode collapse and vanishing gradients.

A warning is printed when a problem begins and is not repeated while it lasts.
The values are in the metrics.
"""

import math
from collections.abc import Callable, Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from gan_jax.errors import warn

# G has collapsed if the mean distance between samples, as a fraction of that
# between real examples, is below this.
COLLAPSED = 0.1
# D separates reals from fakes perfectly if both accuracies exceed CERTAIN in
# WON_LINES consecutive lines of the log.
CERTAIN, WON_LINES = 0.995, 10
# Below this gradient norm a player does not learn. Only these losses are
# checked: the gradient of a lazy penalty may be 0.
VANISHED = 1e-8
ADVERSARIAL = ('gen/loss_grad_norm', 'disc/loss_grad_norm')
# No warnings in the first iterations: an untrained G has no diversity.
QUIET_ITERATIONS = 500


def diversity(images: Float[Array, 'n h w c']) -> Float[Array, '']:
  """Returns the mean Euclidean distance between two different images."""
  n = len(images)
  flat = images.reshape(n, -1)
  flat -= flat.mean(0, keepdims=True)  # keeps precision in float32
  squares = (flat**2).sum(1)
  products = jnp.matmul(flat, flat.T, precision='highest')
  distances = squares[:, None] + squares[None, :] - 2 * products
  distances = jnp.maximum(distances, 0.0)
  distances = jnp.where(jnp.eye(n, dtype=bool), 0.0, distances)
  return jnp.sqrt(distances).sum() / (n * (n - 1))


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
    return (
      'D separates reals from fakes perfectly: both accuracies exceeded '
      f'{CERTAIN:.1%} in {WON_LINES} consecutive lines of the log'
    )
  return None


# Each check, and the number of lines in a row before it warns.
CHECKS: tuple[tuple[Callable[[Mapping[str, float]], str | None], int], ...] = (
  (_collapsed, 2),
  (_vanished, 1),
  (_won, WON_LINES),
)


class HealthChecks:
  """Checks the log records of a run and prints warnings.

  Args:
    quiet_until: No warnings up to this number of images, nor in the first
      QUIET_ITERATIONS.
  """

  def __init__(self, quiet_until: int):
    self._quiet_until = quiet_until
    self._lines = [0] * len(CHECKS)

  def read(self, step: int, images: int, means: Mapping[str, float]) -> None:
    """Checks the mean metrics of the log record at `step`."""
    quiet = step <= QUIET_ITERATIONS or images <= self._quiet_until
    for index, (check, lines) in enumerate(CHECKS):
      message = None if quiet else check(means)
      self._lines[index] = self._lines[index] + 1 if message else 0
      if self._lines[index] == lines:
        warn(f'at {images:,} images, {message}')
