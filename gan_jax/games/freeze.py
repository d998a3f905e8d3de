"""Freezes the first layers of a discriminator, for transfer learning."""

from typing import Any

import jax
import jax.numpy as jnp

from gan_jax.errors import UserError
from gan_jax.games.game import Game
from gan_jax.pair import Pair


def freeze_disc(config: Any, game: Game) -> Game:
  """Freezes the first `config.game.freeze_disc` layers of D.

  They are those nearest to the images: the modules of D in the order of their
  first use. Mo et al. 2020 (Freeze the discriminator).
  """
  count, size = config.game.freeze_disc, config.data.resolution
  n = config.game.get('pack', 1)
  batch = {
    'images': jnp.zeros((n, size, size, config.data.channels)),
    'labels': jnp.zeros(n, jnp.int32),
  }
  layers: list[str] = []

  def record() -> None:
    variables, _ = game.init(jax.random.key(0), batch)
    layers.extend(variables.disc['params'])

  jax.eval_shape(record)  # JAX would sort the keys of a returned dict
  if count >= len(layers):
    raise UserError(
      f'config.game.freeze_disc={count} must be less than {len(layers)}, the '
      f'number of layers of D ({", ".join(layers)})'
    )
  frozen = {*layers[:count]}

  def trainable(params, phase):
    flags = Pair(True, True)
    if game.trainable is not None:
      flags = game.trainable(params, phase)
    disc = {
      name: jax.tree.map(lambda flag, n=name: flag and n not in frozen, part)
      for name, part in jax.tree.broadcast(flags.disc, params.disc).items()
    }
    return Pair(flags.gen, disc)

  return game._replace(trainable=trainable)
