"""The game of images that grow (Karras et al. 2018).

As the game of images, but that both players, and the reals, are of the stage's
resolution; see models/progressive.py for what a stage is.
"""

from typing import Any

import flax.linen as nn

from gan_jax.errors import UserError
from gan_jax.games.game import Game, Phase
from gan_jax.games.image import image_game
from gan_jax.models.progressive import (
  in_play,
  last_level,
  level_of,
  mixed,
  side,
)
from gan_jax.ops.resample import box, nearest
from gan_jax.pair import Pair


def progressive_game(
  gen: nn.Module, disc: nn.Module, *, resolution: int, **image: Any
) -> Game:
  """The game of images, at the stage of the phase.

  Args:
    gen, disc: As of `image_game`; they are told `stage`, and `alpha`.
    resolution: Of the images that the data has. Reals are read smaller than
      that; samples come in it, whatever the stage: each pixel a square.
    **image: What else `image_game` takes.
  """
  last = last_level(resolution)

  def stage(phase: Phase | None) -> dict[str, Any]:
    if phase is None:
      return {'stage': 2 * last}
    level, fading = level_of(phase.stage)
    if not 0 <= level <= last:
      raise UserError(
        f'config.schedule: stage {phase.stage} is of {side(level)}x'
        f'{side(level)}, and the data of {resolution}x{resolution}'
      )
    if fading != ('alpha' in phase.values):
      says = 'fades in, and needs' if fading else 'does not fade in: no'
      raise UserError(
        f"config.schedule: stage {phase.stage} {says} 'values': "
        "{'alpha': (0.0, 1.0)}"
      )
    fade = {'alpha': phase.values['alpha']} if fading else {}
    return {'stage': phase.stage, **fade}

  def downsample(phase):
    return resolution // side(level_of(phase.stage)[0])

  def reals(images, phase):
    if not level_of(phase.stage)[1]:
      return images
    old = nearest(box(images, 2), 2)
    return mixed(old, images, phase.values['alpha'])

  def trainable(params, phase):
    return Pair(*({k: in_play(k, phase.stage) for k in p} for p in params))

  game = image_game(gen, disc, stage=stage, reals=reals, **image)

  def sample(gen_vars, inputs, phase):
    images = game.sample(gen_vars, inputs, phase)
    return nearest(images, resolution // images.shape[1])

  def discriminate(disc_vars, batch, phase):
    images = reals(box(batch['images'], downsample(phase)), phase)
    return game.discriminate(disc_vars, {**batch, 'images': images}, phase)

  return game._replace(
    sample=sample,
    trainable=trainable,
    downsample=downsample,
    discriminate=discriminate,
  )
