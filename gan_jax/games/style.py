"""The image game of a style-based generator (Karras et al. 2020, StyleGAN2).

G mixes styles in training and keeps the moving average of w; samples can be
truncated towards this average. Penalties of G differentiate with respect to w.
"""

import math
import numbers
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from gan_jax.errors import UserError
from gan_jax.games.game import Game, Keys, Phase, Scalar, Style
from gan_jax.games.image import image_game
from gan_jax.games.image_networks import ImageNetworks
from gan_jax.models import style
from gan_jax.models.layers import pixel_norm
from gan_jax.pair import Variables

Images = Float[Array, 'n h w c']
Styles = Float[Array, 'n layers e']

# G's collections, of which the moving average of G has copies: the average of
# w, and the constant noise.
COPIED = ('averages', 'noise')


class StyleNetworks(ImageNetworks):
  """G and D of the game; see `ImageNetworks`."""

  __slots__ = ()

  def sample(self, gen_vars: Variables, inputs: PyTree, phase: Phase) -> Images:
    """Applies G in evaluation mode."""
    del phase
    ws = map_inputs(self.gen, gen_vars, inputs)
    return synthesize(self.gen, gen_vars, ws, inputs['keys'], 'random')

  def penalty_inputs(
    self, gen_vars: Variables, inputs: PyTree, phase: Phase
  ) -> tuple[Callable[[Styles], Images], Styles]:
    """Returns what penalties of G differentiate: (ws) -> images, and ws."""
    del phase
    ws, _ = _map(self.gen, gen_vars, inputs, train=True, mutable=COPIED)
    generate = lambda ws: synthesize(
      self.gen, gen_vars, ws, inputs['keys'], 'random'
    )
    return generate, ws


def style_game(gen: nn.Module, disc: nn.Module, **image: Any) -> Game:
  """Makes an image game whose generator is style-based.

  Args:
    gen, disc: See `image_game`. gen also has the methods `map` and
      `synthesize` of models.style.Generator.
    **image: Further arguments of `image_game`.

  Raises:
    UserError: The generator is not style-based.
  """
  if not all(hasattr(gen, name) for name in ('map', 'synthesize')):
    raise UserError(
      f'config.game.name=style needs a style-based generator, and '
      f'{type(gen).__name__} has no methods map and synthesize: set '
      'config.model.gen.name=style'
    )
  game = image_game(gen, disc, networks=StyleNetworks, **image)
  return game._replace(
    ema_copies=COPIED,
    interpolate=partial(_interpolate, game.interpolate),
    truncate=_truncate,
    style=Style(partial(map_inputs, gen), partial(synthesize, gen), truncate),
  )


def map_inputs(gen: nn.Module, gen_vars: Variables, inputs: PyTree) -> Styles:
  """Maps inputs to a w for each layer, in evaluation mode; see `Style.map`."""
  if 'ws' in inputs:
    return inputs['ws']
  ws = _map(gen, gen_vars, inputs, train=False)
  return truncate(gen_vars, ws, inputs['psi']) if 'psi' in inputs else ws


def synthesize(
  gen: nn.Module, gen_vars: Variables, ws: Styles, keys: Keys, noise: str
) -> Images:
  """Generates images from a w for each layer; see `Style.synthesize`."""
  return gen.apply(gen_vars, ws, keys, noise, method='synthesize')


def truncate(
  gen_vars: Variables, ws: Styles, psi: Scalar, cutoff: int | None = None
) -> Styles:
  """Moves w towards its average; see `models.style.truncate`."""
  return style.truncate(gen_vars['averages']['w_avg'], ws, psi, cutoff)


def check_psi(psi: Any) -> None:
  """Raises UserError unless psi is a finite number."""
  is_number = isinstance(psi, numbers.Real) and not isinstance(psi, bool)
  if not is_number or not math.isfinite(psi):
    raise UserError(
      f'truncation={psi!r} must be a number: 0 gives the average image, 1 is '
      'no truncation'
    )


def _truncate(inputs: PyTree, psi: Scalar) -> PyTree:
  check_psi(psi)
  return {**inputs, 'psi': jnp.full(len(inputs['keys']), psi, jnp.float32)}


def _interpolate(interpolate, a, b, t):
  # Only the direction of z counts: the angle moves evenly with t.
  a, b = ({**inputs, 'z': pixel_norm(inputs['z'])} for inputs in (a, b))
  return interpolate(a, b, t)


def _map(gen, gen_vars, inputs, train, **apply):
  labels = {name: inputs[name] for name in ('labels',) if name in inputs}
  z, keys = inputs['z'], inputs['keys']
  return gen.apply(gen_vars, z, keys, train, method='map', **labels, **apply)
