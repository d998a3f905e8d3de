"""The image game with progressive growing (Karras et al. 2018).

Both networks and the reals have the resolution of the current stage. The stages
are defined in models/progressive.py.
"""

from typing import Any

import flax.linen as nn

from gan_jax.errors import UserError
from gan_jax.games.game import Game, Output, Phase, main_output
from gan_jax.games.image import image_game
from gan_jax.models.progressive import (
  blend,
  is_used,
  last_level,
  level_of,
  size_of,
)
from gan_jax.ops.resample import average_pool, upsample_nearest
from gan_jax.pair import Pair


def progressive_game(
  gen: nn.Module, disc: nn.Module, *, resolution: int, **image: Any
) -> Game:
  """Makes an image game whose resolution grows with the stage of the phase.

  Args:
    gen, disc: See `image_game`; their conditioning has `stage` and `alpha`.
    resolution: Resolution of the data. Reals are downsampled to the resolution
      of the stage; samples are upsampled from it to `resolution` (nearest
      neighbour).
    **image: Further arguments of `image_game`.

  Raises:
    UserError: The resolution is not supported. The functions of the game raise
      it if the schedule's stage or `alpha` is invalid.
  """
  last = last_level(resolution)

  def stage(phase: Phase | None) -> dict[str, Any]:
    if phase is None:
      return {'stage': 2 * last}
    level, fading = level_of(phase.stage)
    if not 0 <= level <= last:
      size = size_of(level)
      raise UserError(
        f'config.schedule: stage {phase.stage} is {size}x{size}, but the data '
        f'is {resolution}x{resolution}: set a smaller stage'
      )
    if fading != ('alpha' in phase.values):
      needs = 'fades in: it needs' if fading else 'does not fade in: remove'
      raise UserError(
        f"config.schedule: stage {phase.stage} {needs} 'values': "
        "{'alpha': ('linear', 0.0, 1.0)}"
      )
    fade = {'alpha': phase.values['alpha']} if fading else {}
    return {'stage': phase.stage, **fade}

  def downsample(phase):
    return resolution // size_of(level_of(phase.stage)[0])

  def reals(images, phase):
    if not level_of(phase.stage)[1]:
      return images
    old = upsample_nearest(average_pool(images, 2), 2)
    return blend(old, images, phase.values['alpha'])

  def trainable(params, phase):
    return Pair(*({k: is_used(k, phase.stage) for k in p} for p in params))

  game = image_game(gen, disc, stage=stage, reals=reals, **image)

  def sample(gen_vars, inputs, phase):
    images = main_output(game).sample(gen_vars, inputs, phase)
    return upsample_nearest(images, resolution // images.shape[1])

  def of_stage(apply):
    """Applies D to images of the data, at the resolution of the stage."""

    def applied(disc_vars, batch, phase):
      images = average_pool(batch['images'], downsample(phase))
      batch = {**batch, 'images': reals(images, phase)}
      return apply(disc_vars, batch, phase)

    return applied

  return game._replace(
    outputs={'images': Output(sample)},
    trainable=trainable,
    downsample=downsample,
    discriminate=of_stage(game.discriminate),
    features=of_stage(game.features),
  )
