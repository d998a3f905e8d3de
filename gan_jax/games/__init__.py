"""What the players play for: a new kind of game is a file, and a row in GAMES.

A row is a function (config, axis_name) -> Game.
"""

import inspect
from collections.abc import Callable
from typing import Any

from flax import linen as nn

from gan_jax import models
from gan_jax.errors import UserError, suggest
from gan_jax.games import augment, latents, losses, penalties
from gan_jax.games.game import Aux, Context, Game, Update
from gan_jax.games.image import image_game
from gan_jax.games.progressive import progressive_game
from gan_jax.pair import Pair
from gan_jax.registry import build, check_keys, choose

__all__ = ['GAMES', 'Aux', 'Context', 'Game', 'Update', 'advice', 'make']


# What of `config.game` changes what D sees of images.
SIGHT = ('augment', 'instance_noise', 'pack')
# What else a game of images has there.
KEYS = (
  'auxiliary', 'clip', 'latent', 'latent_dim', 'loss', 'name', 'penalties',
  *SIGHT,
)  # fmt: skip


def _image(config: Any, axis_name: str | None) -> Game:
  _check_values(config, ('instance_noise',))
  return image_game(**_of_images(config, axis_name))


def _progressive(config: Any, axis_name: str | None) -> Game:
  _check_values(config, ('alpha', 'instance_noise'))
  resolution = config.data.resolution
  of_images = _of_images(config, axis_name)
  return progressive_game(resolution=resolution, **of_images)


def _values(config: Any) -> set[str]:
  """What the schedule gives the game, by name."""
  segments = config.get('schedule', ())
  return {name for segment in segments for name in segment.get('values', {})}


def _check_values(config: Any, known: tuple[str, ...]) -> None:
  """Refuses values of the schedule that the game does not read."""
  for name in sorted(_values(config) - {*known}):
    raise UserError(
      f'config.schedule: the game has no use for a value {name!r}'
      f'{suggest(name, known)} (valid: {", ".join(known)})'
    )


def _of_images(config: Any, axis_name: str | None) -> dict[str, Any]:
  """What every game of images is made of."""
  game, classes = config.game, config.data.get('classes', 0)
  check_keys('config.game', game, sorted(KEYS))
  networks = models.make(
    config.model.to_dict(),
    resolution=config.data.resolution,
    channels=config.data.channels,
    precision=config.precision,
    axis_name=axis_name,
    sorts='auxiliary' in game,
  )
  _check_classes(networks, game, classes)
  named = game.penalties.to_dict() if 'penalties' in game else {}
  return {
    **networks._asdict(),
    'loss': build('config.game.loss', losses.LOSSES, game.loss.to_dict()),
    'latent': choose('config.game.latent', game.latent, latents.LATENTS),
    'latent_dim': game.latent_dim,
    'penalties': [
      penalty
      for penalty in (_penalty(*item) for item in named.items())
      if penalty.weight
    ],
    **_of_disc(game, 'instance_noise' in _values(config)),
    'classes': classes,
  }


def _check_classes(networks: Pair[nn.Module], game: Any, classes: int) -> None:
  """Refuses networks that cannot do what is asked for of classes."""
  if 'auxiliary' in game:
    if not classes:
      raise UserError(
        'config.game.auxiliary is of classes: config.data.classes'
      )
    if not hasattr(networks.disc, 'sorts'):
      raise UserError('config.game.auxiliary: this D does not say a class')
    if {*game.auxiliary} != {'gen', 'disc'}:
      raise UserError('config.game.auxiliary has the weights gen and disc')
  for player, module in networks._asdict().items():
    takes = inspect.signature(type(module).__call__).parameters
    if classes and 'labels' not in takes:
      raise UserError(
        f'config.data.classes={classes}: config.model.{player} is of a network '
        'that is told no class'
      )


def _of_disc(game: Any, noisy: bool) -> dict[str, Any]:
  """What D is shown, and held to, besides."""
  clip = game.get('clip')
  parts = {'clip': None if clip is None else float(clip)}
  how = {key: game[key] for key in SIGHT if key in game}
  if how or noisy:
    parts |= {'sight': augment.make(**how), 'pack': how.get('pack', 1)}
  if 'auxiliary' in game:
    parts['auxiliary'] = Pair(**game.auxiliary)
  return parts


def _penalty(name: str, block: dict[str, Any]) -> penalties.WeightedPenalty:
  where = f'config.game.penalties.{name}'
  if 'weight' not in block:
    raise UserError(f'{where} has no weight')
  weight, every = block.pop('weight'), block.pop('every', 1)
  penalty = build(where, penalties.PENALTIES, {'name': name, **block})
  return penalties.WeightedPenalty(name, penalty, weight, every)


def advice(config: Any) -> str | None:
  """What may not be as intended with a game that can be trained."""
  game, block = config.game, config.model.disc
  if game.get('loss', {}).get('name') != 'wasserstein':
    return None
  penalties = game.get('penalties', {}).values()
  disc = models.MODELS.disc.get(block.name)
  spectral = hasattr(disc, 'spectral') and block.get('spectral', disc.spectral)
  if game.get('clip') or spectral or any(p.weight > 0 for p in penalties):
    return None
  return (
    'the wasserstein loss is of a critic whose slopes are bounded, and nothing '
    'bounds them: set config.game.clip, or the weight of a penalty such as '
    'config.game.penalties.gradient_penalty'
  )


GAMES: dict[str, Callable[[Any, str | None], Game]] = {
  'image': _image,
  'progressive': _progressive,
}


def make(config: Any, axis_name: str | None = None) -> Game:
  """The game that `config.game.name` names."""
  return choose('config.game.name', config.game.name, GAMES)(config, axis_name)
