"""What the players play for: a new kind of game is a file, and a row in GAMES.

A row is a function (config, axis_name) -> Game.
"""

from collections.abc import Callable
from typing import Any

from gan_jax import latents, losses, models, penalties, sight
from gan_jax.errors import UserError, build, choose
from gan_jax.games.game import Aux, Game, Move, View
from gan_jax.games.image import image_game
from gan_jax.games.progressive import progressive_game
from gan_jax.state import Pair

__all__ = ['GAMES', 'Aux', 'Game', 'Move', 'View', 'make']


# What of `config.game` changes what D sees of images.
SIGHT = ('augment', 'instance_noise', 'pack')


def _image(config: Any, axis_name: str | None) -> Game:
  return image_game(**_of_images(config, axis_name))


def _progressive(config: Any, axis_name: str | None) -> Game:
  resolution = config.data.resolution
  of_images = _of_images(config, axis_name)
  return progressive_game(resolution=resolution, **of_images)


def _of_images(config: Any, axis_name: str | None) -> dict[str, Any]:
  """What every game of images is made of."""
  networks = models.make(
    config.model.to_dict(),
    resolution=config.data.resolution,
    channels=config.data.channels,
    precision=config.precision,
    axis_name=axis_name,
  )
  game = config.game
  named = game.penalties.to_dict() if 'penalties' in game else {}
  return {
    **networks._asdict(),
    'loss': build('config.game.loss', losses.LOSSES, game.loss.to_dict()),
    'latent': choose('config.game.latent', game.latent, latents.LATENTS),
    'latent_dim': game.latent_dim,
    'penalties': [
      _penalty(*item) for item in named.items() if item[1]['weight']
    ],
    **_of_disc(game),
    'classes': config.data.get('classes', 0),
  }


def _of_disc(game: Any) -> dict[str, Any]:
  """What D is shown, and held to, besides."""
  parts = {'clip': game.get('clip')}
  how = {key: game[key] for key in SIGHT if key in game}
  if how:
    parts |= {'sight': sight.make(**how), 'pack': how.get('pack', 1)}
  if 'auxiliary' in game:
    parts['auxiliary'] = Pair(**game.auxiliary)
  return parts


def _penalty(name: str, block: dict[str, Any]) -> penalties.Weighted:
  where = f'config.game.penalties.{name}'
  weight, every = block.pop('weight'), block.pop('every', 1)
  if not weight > 0 or every < 1:
    raise UserError(f'{where}: weight={weight} and every={every} are positive')
  penalty = build(where, penalties.PENALTIES, {'name': name, **block})
  return penalties.Weighted(name, penalty, weight, every)


GAMES: dict[str, Callable[[Any, str | None], Game]] = {
  'image': _image,
  'progressive': _progressive,
}


def make(config: Any, axis_name: str | None = None) -> Game:
  """The game that `config.game.name` names."""
  return choose('config.game.name', config.game.name, GAMES)(config, axis_name)
