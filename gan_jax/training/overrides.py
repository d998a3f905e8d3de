"""What is typed over an experiment's file: it acts, or is refused."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from gan_jax.config import flatten
from gan_jax.errors import UserError
from gan_jax.registry import accepts, choose_or_import, is_code


def settle(config: ConfigDict, typed: Iterable[str]) -> list[str]:
  """Settles what follows from the keys that were typed; changes the config.

  Where the name of a row was typed (`optimizer.gen.name=sgd`), the keys of the
  block that this row does not take are left over from the file, and removed.

  Args:
    config: The experiment's, with what was typed.
    typed: The keys.

  Returns:
    What was removed, in words.

  Raises:
    UserError: A typed key has no effect.
  """
  typed = set(typed)
  notes = []
  for path, table in _blocks().items():
    if f'{path}.name' in typed:
      notes += _drop(config, path, table, typed)
  flat = flatten(config.to_dict())
  for key, reason in without_effect(flat):
    if key in typed:
      raise UserError(f'config.{key} has no effect: {reason}')
  return notes


def _blocks() -> Mapping[str, Mapping[str, Callable[..., Any]]]:
  """The blocks whose `name` chooses a row, and what they choose from."""
  # Heavy, and needed only here.
  from gan_jax.games.losses import LOSSES
  from gan_jax.models import MODELS
  from gan_jax.training.optimizers import OPTIMIZERS

  return {
    'game.loss': LOSSES,
    'model.disc': MODELS.disc,
    'model.gen': MODELS.gen,
    'optimizer.disc': OPTIMIZERS,
    'optimizer.gen': OPTIMIZERS,
  }


def _drop(
  config: ConfigDict,
  path: str,
  table: Mapping[str, Callable[..., Any]],
  typed: set[str],
) -> list[str]:
  """Removes what the file says of another row of the table."""
  block = config
  for part in path.split('.'):
    block = block[part]
  if block.name not in table and not is_code(block.name):
    return []  # `choose` refuses it, with the valid names
  row = choose_or_import(f'config.{path}.name', block.name, table)
  taken = {'name', 'learning_rate', *accepts(row)}
  left = [k for k in block if k not in taken and f'{path}.{k}' not in typed]
  with config.unlocked():
    for key in left:
      del block[key]
  names = ', '.join(f'{path}.{key}' for key in left)
  return [f'{path}.name={block.name} does not take {names}'] if left else []


def without_effect(flat: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
  """The keys of a flat config that others put out of play, and why."""
  for key in flat:
    block, _, leaf = key.rpartition('.')
    if leaf != 'weight' and flat.get(f'{block}.weight') == 0:
      yield key, f'config.{block}.weight is 0'
    if leaf == 'negative_slope' and flat.get(f'{block}.activation') == 'relu':
      yield key, f'config.{block}.activation is relu'
  segments = flat.get('schedule') or ({},)
  own = [
    set(segment) if isinstance(segment, Mapping) else set()
    for segment in segments
  ]
  for key in ('batch_size', 'gen_batch_size', 'disc_steps'):
    if all(key in keys for keys in own):
      yield key, 'each segment of config.schedule has its own'
