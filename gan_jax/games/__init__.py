"""Games: the GAN variants, with their losses and penalties.

This folder owns the interface of a game (game.py), the games, and their parts:
losses, penalties, augmentation, latents, the discriminator pass. It may import
models, ops and the modules below them. A new kind of game is a file and an
entry (config, axis_name) -> Game in GAMES.
"""

from collections.abc import Callable
from typing import Any

from gan_jax import models
from gan_jax.errors import UserError, suggest
from gan_jax.games import code_config, image_config, translation_config
from gan_jax.games.config_parts import scheduled_values
from gan_jax.games.freeze import freeze_disc
from gan_jax.games.game import Aux, Context, Game, Update
from gan_jax.registry import choose_or_import

__all__ = ['GAMES', 'Aux', 'Context', 'Game', 'Update', 'advice', 'make']


def advice(config: Any) -> str | None:
  """Returns a warning for a valid config that is probably a mistake."""
  game = config.game
  if game.get('loss', {}).get('name') != 'wasserstein':
    return None
  block = config.model.disc
  bounds_gradients = any(
    penalty.weight > 0 and penalty.get('name', name) != 'drift'
    for name, penalty in game.get('penalties', {}).items()
  )
  disc = models.MODELS.disc.get(block.name)
  spectral = hasattr(disc, 'spectral') and block.get('spectral', disc.spectral)
  if game.get('clip') or spectral or bounds_gradients:
    return None
  return (
    'the wasserstein loss needs a critic with bounded gradients, and nothing '
    'bounds them: set config.game.clip, or the weight of a penalty such as '
    'config.game.penalties.gradient_penalty'
  )


def _check_sources(config: Any, game: Game) -> None:
  """Raises UserError if `config.data` names other sources than the game."""
  has_two = any(config.data.get(name) is not None for name in ('a', 'b'))
  if has_two != (len(game.sources) > 1):
    needs = ' and '.join(f'config.data.{name}' for name in game.sources)
    others = ('source',) if len(game.sources) > 1 else ('a', 'b')
    remove = ' and '.join(f'config.data.{name}' for name in others)
    raise UserError(
      f'config.game.name={config.game.name} trains on {needs}: set it, and set '
      f'{remove} to None'
    )


GAMES: dict[str, Callable[[Any, str | None], Game]] = {
  'bigan': code_config.bigan,
  'cut': translation_config.cut,
  'cyclegan': translation_config.cyclegan,
  'image': image_config.image,
  'infogan': code_config.infogan,
  'pix2pix': translation_config.pix2pix,
  'progressive': image_config.progressive,
  'style': image_config.style,
  'super_resolution': translation_config.super_resolution,
}


def make(config: Any, axis_name: str | None = None) -> Game:
  """Makes the game that `config.game.name` names."""
  make_game = choose_or_import('config.game.name', config.game.name, GAMES)
  game = make_game(config, axis_name)
  if config.game.get('freeze_disc'):
    game = freeze_disc(config, game)
  _check_sources(config, game)
  for name in sorted(scheduled_values(config) - {*game.scheduled}):
    raise UserError(
      f'config.schedule: this game has no scheduled value {name!r}'
      f'{suggest(name, game.scheduled)} '
      f'(valid: {", ".join(game.scheduled) or "none"})'
    )
  return game
