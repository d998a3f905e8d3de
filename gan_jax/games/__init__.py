"""Games: the GAN variants, with their losses and penalties.

This folder owns the interface of a game (game.py), the games, and their parts:
losses, penalties, augmentation, latents, the discriminator pass. It may import
models, ops and the modules below them. A new kind of game is a file and an
entry (config, axis_name) -> Game in GAMES.
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from gan_jax import models
from gan_jax.errors import UserError, suggest
from gan_jax.games import ada, augment, latents, losses, penalties
from gan_jax.games.game import Aux, Context, Game, Update
from gan_jax.games.image import image_game
from gan_jax.games.penalties import WeightedPenalty
from gan_jax.games.progressive import progressive_game
from gan_jax.games.style import style_game
from gan_jax.pair import Pair
from gan_jax.registry import (
  accepts,
  build,
  check_keys,
  choose,
  choose_or_import,
)

__all__ = ['GAMES', 'Aux', 'Context', 'Game', 'Update', 'advice', 'make']

# Scheduled values that training reads, not the game.
TRAINING_VALUES = ('optimizer.', 'ema_halflife_images')
# Keys of `config.game` for image games; AUGMENT_KEYS configure the augmentation
# pipeline.
AUGMENT_KEYS = ('augment', 'instance_noise', 'pack')
KEYS = (
  'ada', 'auxiliary', 'clip', 'freeze_disc', 'gen_penalties', 'latent',
  'latent_dim', 'loss', 'name', 'penalties', *AUGMENT_KEYS,
)  # fmt: skip


def _image(config: Any, axis_name: str | None) -> Game:
  game = image_game(**_image_arguments(config, axis_name))
  return game._replace(scheduled=_schedulable(config))


def _progressive(config: Any, axis_name: str | None) -> Game:
  game = progressive_game(
    resolution=config.data.resolution, **_image_arguments(config, axis_name)
  )
  return game._replace(scheduled=('alpha', *_schedulable(config)))


def _style(config: Any, axis_name: str | None) -> Game:
  game = style_game(**_image_arguments(config, axis_name))
  return game._replace(scheduled=_schedulable(config))


def _scheduled(config: Any) -> set[str]:
  """Names of the values in the schedule, except those of training."""
  segments = config.get('schedule', ())
  names = {name for segment in segments for name in segment.get('values', {})}
  return {name for name in names if not name.startswith(TRAINING_VALUES)}


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
  for player in Pair._fields:
    if 'name' not in config.get('model', {}).get(player, {}):
      raise UserError(
        f'the config has no key model.{player}.name: add it to get_config'
      )
  networks = models.make(
    config.model.to_dict(),
    resolution=config.data.resolution,
    channels=config.data.channels,
    precision=config.precision,
    axis_name=axis_name,
    auxiliary='auxiliary' in game,
  )
  _check_classes(networks, game, classes)
  loss = build('config.game.loss', losses.LOSSES, game.loss.to_dict())
  return {
    **networks._asdict(),
    'loss': loss,
    'latent': choose_or_import(
      'config.game.latent', game.latent, latents.LATENTS
    ),
    'latent_dim': game.latent_dim,
    'penalties': _penalties(config, 'penalties', penalties.PENALTIES),
    'gen_penalties': _penalties(
      config, 'gen_penalties', penalties.GEN_PENALTIES
    ),
    **_augment_arguments(config),
    **_ada_arguments(config, loss),
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
      raise UserError('config.game.auxiliary has two weights: gen and disc')
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
  if not given and 'game.instance_noise' not in _scheduled(config):
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
    made.target is not None or made.p or ada.SCHEDULED in _scheduled(config)
  )
  return {'ada': made} if is_used else {}


def _penalties(
  config: Any, block: str, table: dict[str, Callable[..., Any]]
) -> list[WeightedPenalty]:
  """Makes the penalties of a block that have a weight or a schedule."""
  named = config.game.get(block, {})
  scheduled = _scheduled(config)
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


def _freeze_disc(config: Any, game: Game) -> Game:
  """Freezes the first `config.game.freeze_disc` layers of D.

  They are those nearest to the images: the modules of D in the order of their
  first use. Mo et al. 2020 (Freeze the discriminator).
  """
  count, size = config.game.freeze_disc, config.data.resolution
  batch = {
    'images': jnp.zeros((2, size, size, config.data.channels)),
    'labels': jnp.zeros(2, jnp.int32),
  }
  layers: list[str] = []

  def record() -> None:
    variables, _ = game.init(jax.random.key(0), batch)
    layers.extend(variables.disc['params'])

  jax.eval_shape(record)  # a tree that leaves it would be sorted
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


GAMES: dict[str, Callable[[Any, str | None], Game]] = {
  'image': _image,
  'progressive': _progressive,
  'style': _style,
}


def make(config: Any, axis_name: str | None = None) -> Game:
  """Makes the game that `config.game.name` names."""
  make_game = choose_or_import('config.game.name', config.game.name, GAMES)
  game = make_game(config, axis_name)
  if config.game.get('freeze_disc'):
    game = _freeze_disc(config, game)
  for name in sorted(_scheduled(config) - {*game.scheduled}):
    raise UserError(
      f'config.schedule: this game has no scheduled value {name!r}'
      f'{suggest(name, game.scheduled)} '
      f'(valid: {", ".join(game.scheduled) or "none"})'
    )
  return game
