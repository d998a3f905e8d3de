"""Image games made from a config: plain, growing and style-based."""

import inspect
from collections.abc import Callable
from typing import Any

from flax import linen as nn

from gan_jax.errors import UserError
from gan_jax.games import ada, augment, losses, penalties
from gan_jax.games.config_parts import (
  both_networks,
  loss_and_latents,
  scheduled_values,
)
from gan_jax.games.game import Game
from gan_jax.games.image import image_game
from gan_jax.games.penalties import WeightedPenalty
from gan_jax.games.progressive import progressive_game
from gan_jax.games.style import style_game
from gan_jax.pair import Pair
from gan_jax.registry import accepts, check_keys, choose, choose_or_import

# Keys of `config.game`; AUGMENT_KEYS configure the augmentation pipeline.
AUGMENT_KEYS = ('augment', 'instance_noise', 'pack')
KEYS = (
  'ada', 'auxiliary', 'clip', 'freeze_disc', 'gen_penalties', 'latent',
  'latent_dim', 'loss', 'name', 'penalties', *AUGMENT_KEYS,
)  # fmt: skip


def image(config: Any, axis_name: str | None) -> Game:
  """Makes the game `image`."""
  game = image_game(**_image_arguments(config, axis_name))
  return game._replace(scheduled=_schedulable(config))


def progressive(config: Any, axis_name: str | None) -> Game:
  """Makes the game `progressive`."""
  game = progressive_game(
    resolution=config.data.resolution, **_image_arguments(config, axis_name)
  )
  return game._replace(scheduled=('alpha', *_schedulable(config)))


def style(config: Any, axis_name: str | None) -> Game:
  """Makes the game `style`."""
  game = style_game(**_image_arguments(config, axis_name))
  return game._replace(scheduled=_schedulable(config))


def _schedulable(config: Any) -> tuple[str, ...]:
  """Returns the names of the scheduled values that an image game reads."""
  constant_p = 'ada' in config.game and config.game.ada.get('target', 0) is None
  return (
    'game.instance_noise',
    *((ada.SCHEDULED,) if constant_p else ()),
    *(
      f'game.{block}.{name}.weight'
      for block in ('penalties', 'gen_penalties')
      for name in config.game.get(block, {})
    ),
  )


def _image_arguments(config: Any, axis_name: str | None) -> dict[str, Any]:
  """Makes the arguments of `image_game` from a config."""
  game, classes = config.game, config.data.get('classes', 0)
  check_keys('config.game', game, sorted(KEYS))
  networks = both_networks(config, axis_name)
  _check_classes(networks, game, classes)
  shared = loss_and_latents(config)
  return {
    **networks._asdict(),
    **shared,
    'penalties': _penalties(config, 'penalties', penalties.PENALTIES),
    'gen_penalties': _penalties(
      config, 'gen_penalties', penalties.GEN_PENALTIES
    ),
    **_augment_arguments(config),
    **_ada_arguments(config, shared['loss']),
    'clip': None if game.get('clip') is None else float(game.clip),
    'classes': classes,
    'auxiliary': Pair(**game.auxiliary) if 'auxiliary' in game else None,
    'axis_name': axis_name,
  }


def _check_classes(networks: Pair[nn.Module], game: Any, classes: int) -> None:
  """Raises UserError for networks that do not support the classes."""
  if 'auxiliary' in game:
    if not classes:
      raise UserError(
        'config.game.auxiliary needs classes: set config.data.classes'
      )
    if not hasattr(networks.disc, 'auxiliary'):
      raise UserError(
        'config.game.auxiliary needs a D with an auxiliary classifier, as '
        'config.model.disc.name=resnet'
      )
    if {*game.auxiliary} != {'gen', 'disc'}:
      raise UserError('config.game.auxiliary needs two weights: gen and disc')
  for player, module in networks._asdict().items():
    takes = inspect.signature(type(module).__call__).parameters
    if classes and 'labels' not in takes:
      raise UserError(
        f'config.data.classes={classes}: {type(module).__module__}.'
        f'{type(module).__name__} of config.model.{player} takes no labels: '
        'set the classes to 0, or choose a conditional network'
      )


def _augment_arguments(config: Any) -> dict[str, Any]:
  """Makes the augmentation pipeline; {} if nothing configures one."""
  game = config.game
  given = {key: game[key] for key in AUGMENT_KEYS if key in game}
  if not given and 'game.instance_noise' not in scheduled_values(config):
    return {}
  pipeline = augment.make_augment(**given)
  return {'augment': pipeline, 'pack': given.get('pack', 1)}


def _ada_arguments(config: Any, loss: losses.GANLoss) -> dict[str, Any]:
  """Makes the adaptive augmentation; {} if there is none."""
  game = config.game
  if 'ada' not in game:
    return {}
  check_keys('config.game.ada', game.ada, accepts(ada.make_ada))
  made = ada.make_ada(**game.ada)
  ada.check_ada(
    made, config.data.channels, game.get('pack', 1), loss.real_score is not None
  )
  is_used = (
    made.target is not None
    or made.p
    or ada.SCHEDULED in scheduled_values(config)
  )
  return {'ada': made} if is_used else {}


def _penalties(
  config: Any, block: str, table: dict[str, Callable[..., Any]]
) -> list[WeightedPenalty]:
  """Makes the penalties of a block that have a weight or a schedule."""
  named = config.game.get(block, {})
  scheduled = scheduled_values(config)
  found = []
  for name, fields in named.items():
    where, fields = f'config.game.{block}.{name}', dict(fields)
    if 'weight' not in fields:
      raise UserError(f'{where} has no weight: set {where}.weight')
    if 'name' in fields:  # then the block may have any name
      make = choose_or_import(f'{where}.name', fields.pop('name'), table)
    else:
      make = choose(f'config.game.{block}', name, table)
    check_keys(where, fields, ['name', 'weight', 'every', *accepts(make)])
    weight, every = fields.pop('weight'), fields.pop('every', 1)
    penalty, key = make(**fields), f'game.{block}.{name}.weight'
    if weight or key in scheduled:
      found.append(WeightedPenalty(name, penalty, weight, every, key))
  return found
