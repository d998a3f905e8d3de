"""The settings of the lab: a flat selection of the keys of an experiment.

A setting has the name of its key in the config, so that a page's settings are
an experiment, and the reverse.
"""

import pprint
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from gan_jax.bounds import BOUNDS, Bound, bound_of
from gan_jax.data.toys import TOYS
from gan_jax.errors import UserError
from gan_jax.games.latents import LATENTS
from gan_jax.games.losses import LOSSES
from gan_jax.games.penalties import GEN_PENALTIES, PENALTIES
from gan_jax.models.layers import ACTIVATIONS
from gan_jax.registry import accepts, choose
from gan_jax.training.optimizers import OPTIMIZERS, SCHEDULABLE

Settings = dict[str, Any]

PLAYERS = ('gen', 'disc')
PENALTY_KEYS = tuple(
  f'game.{block}.{name}.weight'
  for block, table in (
    ('penalties', PENALTIES),
    ('gen_penalties', GEN_PENALTIES),
  )
  for name in table
)
# Toys in 1-D; the others are in 2-D.
IN_1D = tuple(name for name, make in TOYS.items() if make().dim == 1)

DEFAULTS: Settings = {
  'seed': 0,
  'data.source': 'toy:ring',
  'batch_size': 128,
  'disc_steps': 1,
  'game.loss.name': 'non_saturating',
  'game.loss.real_label': 1.0,
  'game.latent': 'gaussian',
  'game.latent_dim': 2,
  'game.clip': 0.0,
  'game.pack': 1,
  'game.instance_noise': 0.0,
  **dict.fromkeys(PENALTY_KEYS, 0.0),
  **{
    f'model.{player}.{key}': value
    for player in PLAYERS
    for key, value in (('hidden', (64, 64, 64)), ('activation', 'relu'))
  },
  'model.disc.dropout': 0.0,
  'model.disc.stddev_group': 0,
  **{
    f'optimizer.{player}.{key}': value
    for player in PLAYERS
    for key, value in (
      ('name', 'adam'),
      ('learning_rate', 1e-3),
      ('b1', 0.0),
      ('b2', 0.9),
    )
  },
}
# Settings that select a row of a table.
CHOICES: dict[str, tuple[str, ...]] = {
  'game.latent': tuple(LATENTS),
  'game.loss.name': tuple(LOSSES),
  'model.disc.activation': tuple(ACTIVATIONS),
  'model.gen.activation': tuple(ACTIVATIONS),
  'optimizer.disc.name': tuple(OPTIMIZERS),
  'optimizer.gen.name': tuple(OPTIMIZERS),
}
# Bounds that are narrower than those of experiments, so that a page always
# answers at once.
LIMITS: dict[str, Bound] = {
  'batch_size': Bound(int, 8, 1024),
  'disc_steps': Bound(int, 1, 10),
  'game.clip': Bound(float, 0, 10),
  'game.instance_noise': Bound(float, 0, 10),
  'game.latent_dim': Bound(int, 1, 16),
  'game.loss.real_label': Bound(float, 0, 1, above=True),
  'game.pack': Bound(int, 1, 8),
  'model.disc.hidden': Bound(int, 1, 256, several=True),
  'model.disc.stddev_group': Bound(int, 0, 16),
  'model.gen.hidden': Bound(int, 1, 256, several=True),
  'seed': Bound(int, 0, 2**31 - 1),
}
MAX_LAYERS = 6
# Iterations of a saved experiment.
SAVED_STEPS = 5_000


def settings_of(config: ConfigDict) -> Settings:
  """Returns the settings of an experiment."""
  found = {}
  for key, default in DEFAULTS.items():
    value: Any = config
    for part in key.split('.'):
      value = value.get(part) if hasattr(value, 'get') else None
    found[key] = default if value is None else value
  return check(found)


def check(settings: Mapping[str, Any]) -> Settings:
  """Completes settings by the defaults and checks them.

  Raises:
    UserError: A key is unknown, or a value is invalid.
  """
  for key in settings:
    choose('setting', key, DEFAULTS)
  checked = {**DEFAULTS, **settings}
  for key, value in checked.items():
    if isinstance(value, list):
      value = tuple(value)
    if key in CHOICES:
      if not isinstance(value, str):
        raise UserError(f'{key}={value!r} must be a name')
      choose(key, value, dict.fromkeys(CHOICES[key]))
    elif key != 'data.source':
      bound = LIMITS.get(key) or bound_of(key)
      if problem := bound.problem(value):
        raise UserError(f'{key}={value!r} {problem}')
      if bound.kind is float:
        value = float(value)
    checked[key] = value
  _check_together(checked)
  return checked


def _check_together(settings: Settings) -> None:
  for player in PLAYERS:
    layers = len(settings[f'model.{player}.hidden'])
    if layers > MAX_LAYERS:
      raise UserError(
        f'model.{player}.hidden has {layers} layers: at most {MAX_LAYERS}'
      )
  if settings['batch_size'] % settings['game.pack']:
    raise UserError(
      f'game.pack={settings["game.pack"]} must divide '
      f'batch_size={settings["batch_size"]}'
    )
  kind, _, name = str(settings['data.source']).partition(':')
  if kind == 'toy':
    choose('data.source', name, TOYS)
  elif kind != 'drawing':
    raise UserError(
      f'data.source={settings["data.source"]!r} must be toy:NAME or '
      'drawing:NAME'
    )


def live_values(settings: Settings) -> dict[str, float]:
  """Returns the traced values of a program by key: no change recompiles it.

  The weight of a penalty, and the noise, are traced while they are not 0.
  """
  values = {
    key: settings[key]
    for key in (*PENALTY_KEYS, 'game.instance_noise')
    if settings[key] > 0
  }
  for player in PLAYERS:
    name = settings[f'optimizer.{player}.name']
    for leaf in SCHEDULABLE.get(name, ()):
      key = f'optimizer.{player}.{leaf}'
      values[key] = settings[key]
  return values


def program_key(settings: Settings) -> str:
  """Returns a text that is equal for settings with the same program."""
  live = {
    'seed',
    *live_values(settings),
    *(f'optimizer.{player}.learning_rate' for player in PLAYERS),
  }
  fixed = {k: v for k, v in settings.items() if k not in live}
  return repr(sorted(fixed.items()) + sorted(live))


def make_config(
  base: ConfigDict, settings: Settings, source: str, dim: int
) -> ConfigDict:
  """Makes the config of a run with settings.

  Args:
    base: The experiment that the lab was started with, for all other keys.
    settings: Checked settings.
    source: The value of `data.source`.
    dim: The number of coordinates.
  """
  config = base.copy_and_resolve_references()
  config.unlock()
  for key in (
    'batch_size', 'disc_steps', 'seed', 'game.latent', 'game.latent_dim',
  ):  # fmt: skip
    config.update_from_flattened_dict({key: settings[key]})
  config.gen_batch_size = None
  config.data.source = source
  config.data.resolution, config.data.channels = 1, dim
  config.data.classes = 0
  config.game = ConfigDict({'name': 'image', **_game_block(base, settings)})
  config.model = ConfigDict(
    {player: _model_block(player, settings) for player in PLAYERS}
  )
  config.optimizer = ConfigDict(
    {player: _optimizer_block(player, settings) for player in PLAYERS}
  )
  config.schedule = ({'values': live_values(settings)},)
  config.total_images = settings['batch_size'] * settings['disc_steps'] * 2**24
  return config


def _game_block(base: ConfigDict, settings: Settings) -> dict[str, Any]:
  name = settings['game.loss.name']
  block = {
    'latent': settings['game.latent'],
    'latent_dim': settings['game.latent_dim'],
    'loss': {'name': name},
    'pack': settings['game.pack'],
    'clip': settings['game.clip'] or None,
  }
  if 'real_label' in accepts(LOSSES[name]):
    block['loss']['real_label'] = settings['game.loss.real_label']
  if settings['game.instance_noise']:
    block['instance_noise'] = settings['game.instance_noise']
  for key in PENALTY_KEYS:
    _, kind, penalty, _ = key.split('.')
    if settings[key]:
      # The penalty's other arguments, such as its target.
      others = base.game.get(kind, {}).get(penalty, {})
      row = {**dict(others), 'weight': settings[key]}
      block.setdefault(kind, {})[penalty] = row
  return block


def _model_block(player: str, settings: Settings) -> dict[str, Any]:
  prefix = f'model.{player}.'
  block = {
    key.removeprefix(prefix): value
    for key, value in settings.items()
    if key.startswith(prefix)
  }
  block['name'] = 'mlp'
  if player == 'gen':
    block['output'] = 'linear'
  return block


def _optimizer_block(player: str, settings: Settings) -> dict[str, Any]:
  name = settings[f'optimizer.{player}.name']
  keys = ('learning_rate', *SCHEDULABLE.get(name, ()))
  values = {key: settings[f'optimizer.{player}.{key}'] for key in keys}
  return {'name': name, **values}


def experiment_file(config: ConfigDict, name: str) -> str:
  """Returns the text of an experiment file that trains these settings.

  Args:
    config: What `make_config` returned.
    name: The name of the file.
  """
  config = config.copy_and_resolve_references()
  images = config.batch_size * config.disc_steps * SAVED_STEPS
  config.schedule = ({},)
  config.total_images = images
  config.steps_per_dispatch = 50
  config.log_every_steps = 100
  config.sample_every_images = images // 40
  config.evaluation.every_images = images // 20
  config.checkpoint_every_images = images // 4
  text = pprint.pformat(config.to_dict(), width=76, sort_dicts=False)
  lines = text.replace('\n', '\n    ')
  return (
    f'"""An experiment that was saved by the lab.\n\n'
    f'  python launch.py --config={name}\n"""\n\n'
    'from ml_collections import ConfigDict\n\n\n'
    "def get_config(arg: str = '') -> ConfigDict:\n"
    '  """Returns the config."""\n'
    '  del arg\n'
    f'  return ConfigDict(\n    {lines}\n  )\n'
  )


def controls() -> list[dict[str, Any]]:
  """Describes the settings for the page: key, kind and range or choices."""
  described = []
  for key, default in DEFAULTS.items():
    if key == 'data.source':
      continue
    control = {'key': key, 'default': default}
    bound = LIMITS.get(key) or BOUNDS.get(key) or bound_of(key)
    if key in CHOICES:
      control |= {'kind': 'choice', 'choices': CHOICES[key]}
    elif key.endswith('.hidden'):
      control |= {'kind': 'layers', 'layers': MAX_LAYERS, 'units': bound.high}
    elif bound.kind is int:
      control |= {'kind': 'integer', 'low': bound.low, 'high': bound.high}
    else:
      control |= {'kind': 'number', 'low': bound.low}
      control['high'] = {'weight': 100.0, 'learning_rate': 1.0}.get(
        key.rpartition('.')[2], min(bound.high, 10.0)
      )
    described.append(control)
  return described
