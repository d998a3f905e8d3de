"""The optimizers: one optax transformation per player, without learning rate.

The training step multiplies by the learning rate of the schedule and passes
scheduled hyperparameters to `update` by name.
"""

from collections.abc import Callable, Mapping
from typing import Any

import optax

from gan_jax.pair import Pair
from gan_jax.registry import build


def adam(
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  lazy_interval: int | None = None,
) -> optax.GradientTransformationExtraArgs:
  """Makes Adam (Kingma & Ba 2015); b1 and b2 can be scheduled.

  Args:
    b1, b2, eps: As in the paper.
    lazy_interval: The interval k of a lazy penalty, for which Adam is
      corrected: with c = k / (k + 1), the learning rate is multiplied by c, and
      b1 and b2 are raised to the power c (Karras et al. 2020, StyleGAN2,
      appendix B). None: no correction.
  """
  c = 1.0 if lazy_interval is None else lazy_interval / (lazy_interval + 1)
  corrected = lambda b: b if lazy_interval is None else b**c
  init = optax.scale_by_adam(b1, b2, eps).init

  def update(grads, state, params=None, *, b1=b1, b2=b2, **_):
    tx = optax.scale_by_adam(corrected(b1), corrected(b2), eps)
    if lazy_interval is None:
      return tx.update(grads, state, params)
    steps, state = tx.update(grads, state, params)
    return optax.tree.scale(c, steps), state

  return optax.GradientTransformationExtraArgs(init, update)


def rmsprop(
  decay: float = 0.99, eps: float = 1e-8
) -> optax.GradientTransformation:
  """Makes RMSprop (Hinton 2012): g / (sqrt(v) + eps), as in the WGAN code.

  eps is outside the square root: the gradients of a clipped critic are so small
  that an eps inside would dominate them.
  """
  return optax.scale_by_rms(decay, eps, eps_in_sqrt=False)


def sgd(momentum: float = 0.0) -> optax.GradientTransformation:
  """Makes stochastic gradient descent, with momentum if it is not 0."""
  return optax.trace(momentum) if momentum else optax.identity()


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
  'adam': adam,
  'rmsprop': rmsprop,
  'sgd': sgd,
}
# Hyperparameters that the schedule can change, by optimizer.
SCHEDULABLE = {'adam': ('b1', 'b2')}


def make(config: Mapping[str, Any]) -> Pair[optax.GradientTransformation]:
  """Makes both players' optimizers from `config.optimizer`."""

  def one(player: str) -> optax.GradientTransformation:
    block = dict(config[player])
    del block['learning_rate']  # the schedule applies it
    return build(f'config.optimizer.{player}', OPTIMIZERS, block)

  return Pair(gen=one('gen'), disc=one('disc'))
