"""What the config of a run says: its checks, its table, its file."""

import importlib.util
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from gan_jax import parallel
from gan_jax.errors import UserError
from gan_jax.schedule import Table, tabulate

# What may differ between the start of a run and its resumption: none of these
# changes what is computed before, or where.
CHANGEABLE = (
  'checkpoint_every_images',
  'checkpoints_to_keep',
  'data.max_device_bytes',
  'log_every_steps',
  'parallel',
  'sample_every_images',
  'total_images',
  'wandb',
)

POSITIVE = (
  'batch_size',
  'checkpoint_every_images',
  'checkpoints_to_keep',
  'data.resolution',
  'disc_steps',
  'ema_halflife_images',
  'game.latent_dim',
  'gen_batch_size',
  'log_every_steps',
  'optimizer.disc.learning_rate',
  'optimizer.gen.learning_rate',
  'rounds_per_dispatch',
  'sample_every_images',
  'total_images',
)


def check(config: ConfigDict) -> None:
  """Refuses what no run can be made of."""
  flat = flatten(config.to_dict())
  for key in POSITIVE:
    value = flat.get(key)
    # Written so that NaN is refused too.
    if value is not None and not value > 0:
      raise UserError(f'config.{key}={value} must be positive')
  if config.wandb and importlib.util.find_spec('wandb') is None:
    raise UserError(
      "config.wandb needs Weights & Biases: pip install -e '.[wandb]'"
    )
  for row in table(config).rows:
    for name in ('batch_size', 'gen_batch_size'):
      if (size := getattr(row.span, name)) is not None:
        parallel.check_batch_size(name, size)


def table(config: ConfigDict) -> Table:
  """The course of the run: `config.schedule`, over the top-level settings."""
  return tabulate(
    [dict(span) for span in config.get('schedule', ({},))],
    defaults={
      'batch_size': config.batch_size,
      'gen_batch_size': config.gen_batch_size,
      'disc_steps': config.disc_steps,
      'gen_learning_rate': config.optimizer.gen.learning_rate,
      'disc_learning_rate': config.optimizer.disc.learning_rate,
    },
    total_images=config.total_images,
    rounds_per_dispatch=config.rounds_per_dispatch,
    ema_halflife_images=config.ema_halflife_images,
  )


def flatten(tree: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """{'a': {'b': 1}} -> {'a.b': 1}."""
  return dict(_leaves(tree, prefix))


def _leaves(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
  for key, value in tree.items():
    if isinstance(value, Mapping):
      yield from _leaves(value, f'{prefix}{key}.')
    else:
      yield f'{prefix}{key}', value


def _file(workdir: str | Path) -> epath.Path:
  return epath.Path(workdir) / 'config.json'


def check_workdir(config: ConfigDict, workdir: str | Path) -> None:
  """Refuses a workdir that holds another run, and says in what it differs."""
  file = _file(workdir)
  if not file.exists():
    return
  there, here = (
    flatten(json.loads(file.read_text())),
    flatten(_jsonable(config)),
  )
  differing = [
    f'{key} ({there.get(key)} there, {here.get(key)} here)'
    for key in sorted(there.keys() | here.keys())
    if there.get(key) != here.get(key) and key not in CHANGEABLE
  ]
  if differing:
    raise UserError(
      f'{workdir} holds a run with another config: {"; ".join(differing)}; '
      'name another --workdir'
    )


def write(config: ConfigDict, workdir: str | Path) -> None:
  """Writes `config.json`, whole or not at all."""
  file = _file(workdir)
  file.parent.mkdir(parents=True, exist_ok=True)
  part = file.with_suffix('.part')
  part.write_text(json.dumps(_jsonable(config), indent=2) + '\n')
  part.replace(file)


def _jsonable(config: ConfigDict) -> dict[str, Any]:
  return json.loads(json.dumps(config.to_dict()))


def read(workdir: str | Path) -> ConfigDict:
  """Reads `config.json`."""
  file = _file(workdir)
  if not file.exists():
    raise UserError(f'{workdir} is not the workdir of a run: no config.json')
  return ConfigDict(_tuples(json.loads(file.read_text())))


def _tuples(tree: Any) -> Any:
  """JSON has lists where the config had tuples."""
  if isinstance(tree, dict):
    return {key: _tuples(value) for key, value in tree.items()}
  return tuple(map(_tuples, tree)) if isinstance(tree, list) else tree
