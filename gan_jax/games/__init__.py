"""What the players play for: a new kind of game is a file, and a row in GAMES.

A row is a function (config, axis_name) -> Game.
"""

from collections.abc import Callable
from typing import Any

from gan_jax import latents, losses, models
from gan_jax.errors import build, choose
from gan_jax.games.game import Aux, Game, Move, View
from gan_jax.games.image import image_game

__all__ = ['GAMES', 'Aux', 'Game', 'Move', 'View', 'make']


def _image(config: Any, axis_name: str | None) -> Game:
  gen, disc = models.make(
    config.model.to_dict(),
    resolution=config.data.resolution,
    channels=config.data.channels,
    precision=config.precision,
    axis_name=axis_name,
  )
  game = config.game
  return image_game(
    gen,
    disc,
    loss=build('config.game.loss', losses.LOSSES, game.loss.to_dict()),
    latent=choose('config.game.latent', game.latent, latents.LATENTS),
    latent_dim=game.latent_dim,
  )


GAMES: dict[str, Callable[[Any, str | None], Game]] = {'image': _image}


def make(config: Any, axis_name: str | None = None) -> Game:
  """The game that `config.game.name` names."""
  return choose('config.game.name', config.game.name, GAMES)(config, axis_name)
