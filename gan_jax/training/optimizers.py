"""The optax pair: one transformation a player, without a learning rate.

The iteration multiplies by the learning rate, which the schedule gives it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import optax

from gan_jax.errors import UserError
from gan_jax.pair import Pair
from gan_jax.registry import build


def adam(
  b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
  """Adam (Kingma & Ba 2015)."""
  if not (0 <= b1 < 1 and 0 <= b2 < 1):
    raise UserError(f'b1={b1} and b2={b2} of Adam must be from 0 to below 1')
  return optax.scale_by_adam(b1, b2, eps)


def rmsprop(
  decay: float = 0.99, eps: float = 1e-8
) -> optax.GradientTransformation:
  """RMSprop (Hinton 2012): g / (sqrt v + eps), as WGAN was published with.

  (With eps in the root, gradients below its own are as good as none, and those
  of a clipped critic are.)
  """
  return optax.scale_by_rms(decay, eps, eps_in_sqrt=False)


def sgd(momentum: float = 0.0) -> optax.GradientTransformation:
  """Stochastic gradient descent."""
  return optax.trace(momentum) if momentum else optax.identity()


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
  'adam': adam,
  'rmsprop': rmsprop,
  'sgd': sgd,
}


def make(config: Mapping[str, Any]) -> Pair[optax.GradientTransformation]:
  """Both players' optimizers, from `config.optimizer`."""

  def one(player: str) -> optax.GradientTransformation:
    block = dict(config[player])
    del block['learning_rate']  # the schedule's
    return build(f'config.optimizer.{player}', OPTIMIZERS, block)

  return Pair(gen=one('gen'), disc=one('disc'))
