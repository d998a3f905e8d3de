"""Checks a config before a run is created or resumed."""

import importlib.util
from pathlib import Path

from ml_collections import ConfigDict

from gan_jax import config as cfg
from gan_jax import devices
from gan_jax.bounds import bound_of, check_values
from gan_jax.errors import UserError, suggest
from gan_jax.pair import Pair
from gan_jax.registry import choose, is_code
from gan_jax.training.optimizers import SCHEDULABLE
from gan_jax.training.schedule import look_up_keys, make_schedule

# What happens when a loss or a gradient is not finite.
ON_DIVERGENCE = {
  'stop': 'stop; the last checkpoint is kept',
  'rollback': 'restore the last checkpoint and use other data and latents',
}


def check_config(config: ConfigDict) -> None:
  """Raises UserError if no run can be created from the config."""
  flat = cfg.flatten(config.to_dict())
  cfg.check_keys(flat)
  check_values(flat)
  choose('config.on_divergence', config.on_divergence, ON_DIVERGENCE)
  if config.wandb and importlib.util.find_spec('wandb') is None:
    raise UserError(
      "config.wandb needs Weights & Biases: pip install -e '.[wandb]'"
    )
  players = config.get('init', {}).get('players', Pair._fields)
  for player in players:
    choose('player of config.init.players', player, dict.fromkeys(Pair._fields))
  if not players:
    raise UserError('config.init.players=() must name gen, disc or both')
  make_schedule(config)
  _check_scheduled_values(config)
  for index, segment in enumerate(config.get('schedule', ({},))):
    resolved = look_up_keys(segment, config)
    for name in ('batch_size', 'gen_batch_size'):
      size, where = resolved.get(name, config[name]), name
      if name in segment:
        is_key = isinstance(segment[name], str)
        where = segment[name] if is_key else f'schedule[{index}].{name}'
      if size is not None:
        devices.check_batch_size(where, size)


def _check_scheduled_values(config: ConfigDict) -> None:
  """Refuses scheduled values that nothing reads, or that are out of bounds.

  `games.make` checks the names of the game's values.
  """
  for index, segment in enumerate(config.get('schedule', ({},))):
    for name, curve in segment.get('values', {}).items():
      where = f'config.schedule[{index}]: {name}'
      if name.startswith('optimizer.'):
        _check_schedulable(config, where, name)
      bound = bound_of(name)
      for end in curve[1:] if isinstance(curve, tuple) else (curve,):
        if problem := bound.problem(end) if bound else '':
          raise UserError(f'{where}={curve!r}: {end!r} {problem}')


def _check_schedulable(config: ConfigDict, where: str, name: str) -> None:
  """Refuses a hyperparameter that the optimizer cannot schedule."""
  optimizers = {p: config.optimizer[p].name for p in Pair._fields}
  if is_code(optimizers.get(name.split('.')[1])):
    return
  names = [
    f'optimizer.{player}.{key}'
    for player, optimizer in optimizers.items()
    for key in SCHEDULABLE.get(optimizer, ())
  ]
  if name not in names:
    raise UserError(
      f'{where} cannot be scheduled{suggest(name, names)} '
      f'(valid: {", ".join(names) or "none"})'
    )


def check_length(config: ConfigDict, workdir: str | Path, trained: int) -> None:
  """Refuses a new `total_images` that would change completed iterations.

  Args:
    config: The current config.
    workdir: The workdir of the run.
    trained: The iteration of the newest checkpoint.

  Raises:
    UserError: The new length is below the images already seen, or the schedule
      depends on the length.
  """
  schedule = make_schedule(config)
  now = config.total_images
  if trained > schedule.total_steps:
    raise UserError(
      f'config.total_images={now} is below the {schedule.images(trained):,} '
      f'images that {workdir} has already trained on: increase it, or load an '
      'earlier checkpoint with gan_jax.load(workdir, step=...)'
    )
  before = cfg.read(workdir).total_images if trained else now
  if before != now and schedule.follows_its_end:
    raise UserError(
      f'config.total_images={now}, but {workdir} was started with {before}: '
      'its schedule depends on the length of the run, so the length cannot '
      'change: keep it, or choose another --workdir'
    )
