"""Adaptive discriminator augmentation (ADA).

Reals and fakes are augmented with the same probability p, which adapts to how
much D overfits: Karras et al. 2020, "Training generative adversarial networks
with limited data", section 3. The augmentations are in transforms.py.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from gan_jax.errors import UserError
from gan_jax.games import transforms
from gan_jax.registry import choose

Scalar = float | Float[Array, '']
SCHEDULED = 'game.ada.p'


class Ada(NamedTuple):
  """The augmentations in front of D, and how their probability adapts.

  Attributes:
    strengths: A row of transforms.PIPELINES.
    p: The probability of each augmentation; with a target, the initial one.
    target: Target of the mean sign of D's logits of reals, r_t in the paper. p
      rises while the mean is above: D overfits. None: p is constant, or
      scheduled as `game.ada.p`.
    adjust_images: Number of reals in which p changes by 1.
    every: Number of D updates between two changes of p.
  """

  strengths: Mapping[str, float]
  p: float = 0.0
  target: float | None = 0.6
  adjust_images: int = 500_000
  every: int = 4

  def init(self) -> PyTree:
    """Returns the initial state: p and the statistics since its last change."""
    if self.target is None:
      return None
    return {
      'p': jnp.float32(self.p),
      'sign_sum': jnp.float32(0),
      'images': jnp.float32(0),
      'updates': jnp.int32(0),
    }

  def probability(self, state: PyTree, values: Mapping[str, Any]) -> Scalar:
    """Returns the current p; `values` are the scheduled ones."""
    return values.get(SCHEDULED, self.p) if state is None else state['p']

  def update(self, state: PyTree, signs: Float[Array, ' n']) -> PyTree:
    """Returns the state after an update of D.

    As in the reference implementation, p has no upper limit.

    Args:
      state: The state before.
      signs: The sign of the logit of each real of the update, over all devices;
        of an image with a logit for each patch, their mean.
    """
    total = state['sign_sum'] + jnp.sum(signs)
    images = state['images'] + signs.size
    updates = state['updates'] + 1
    due = updates == self.every
    change = jnp.sign(total / images - self.target) * images
    moved = jnp.maximum(state['p'] + change / float(self.adjust_images), 0.0)
    return {
      'p': jnp.where(due, moved, state['p']),
      'sign_sum': jnp.where(due, 0.0, total),
      'images': jnp.where(due, 0.0, images),
      'updates': jnp.where(due, 0, updates),
    }


def make_ada(
  pipeline: str = 'bgc',
  p: float = 0.0,
  target: float | None = 0.6,
  adjust_images: int = 500_000,
  every: int = 4,
) -> Ada:
  """Makes the augmentation of a config; see Ada for the arguments.

  Raises:
    UserError: The pipeline is unknown.
  """
  table = transforms.PIPELINES
  strengths = choose('config.game.ada.pipeline', pipeline, table)
  return Ada(strengths, p, target, adjust_images, every)


def check_ada(ada: Ada, channels: int, pack: int, has_sign: bool) -> None:
  """Raises UserError if the augmentation does not fit the rest of a game.

  Args:
    ada: The augmentation.
    channels: Channels of the images.
    pack: Number of images in one input of D.
    has_sign: Whether D classifies an image by the sign of its logit.
  """
  if 'color' in ada.strengths and channels not in (1, 3):
    raise UserError(
      f'config.data.channels={channels}: the color augmentations of '
      'config.game.ada.pipeline need 1 or 3 channels: choose one without c'
    )
  if pack > 1:
    raise UserError(
      f'config.game.ada augments single images, and config.game.pack={pack}: '
      'set pack to 1, or remove config.game.ada'
    )
  if ada.target is not None and not has_sign:
    raise UserError(
      f'config.game.ada.target={ada.target} needs a loss whose logits have a '
      'sign, such as non_saturating: set config.game.ada.target=None and '
      'config.game.ada.p'
    )
