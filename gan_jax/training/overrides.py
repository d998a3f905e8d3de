"""Command-line overrides: each one takes effect or raises an error."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from gan_jax.bounds import bound_of
from gan_jax.config import flatten
from gan_jax.errors import UserError
from gan_jax.registry import accepts, choose_or_import, is_code


def override(where: str, config: ConfigDict, key: str, value: Any) -> None:
  """Overrides a key of a config, as its flag would."""
  default = flatten(config.to_dict())[key]
  wrong = isinstance(value, bool) != isinstance(default, bool)
  wrong = wrong and default is not None
  if value is None:
    bound = bound_of(key)
    wrong = bound is None or not bound.none
  try:
    if not wrong:
      config.update_from_flattened_dict({key: value})
      return
  except (TypeError, ValueError):
    pass
  raise UserError(
    f'{where}: {key}={value!r} must have the type of its default {default!r}'
  )


def settle(config: ConfigDict, typed: Iterable[str]) -> list[str]:
  """Removes keys that overrides made obsolete; modifies the config in place.

  If an override selects another entry of a table (`optimizer.gen.name=sgd`),
  keys of the block that this entry does not accept are left over from the
  experiment's file, and are removed.

  Args:
    config: The experiment's config, with the overrides applied.
    typed: The overridden keys.

  Returns:
    Messages about the removed keys.

  Raises:
    UserError: An override has no effect.
  """
  typed = set(typed)
  notes = []
  for path, table in _blocks().items():
    if f'{path}.name' in typed:
      notes += _drop(config, path, table, typed)
  flat = flatten(config.to_dict())
  if flat.get('evaluation.protocol') is not None:
    # A slow import, which is rarely needed.
    from gan_jax.metrics.protocols import check_settings

    prefix = 'evaluation.'
    check_settings(
      flat['evaluation.protocol'],
      [key.removeprefix(prefix) for key in typed if key.startswith(prefix)],
    )
  for key, reason in without_effect(flat):
    if key in typed:
      raise UserError(f'config.{key} has no effect: {reason}')
  return notes


def _blocks() -> Mapping[str, Mapping[str, Callable[..., Any]]]:
  """Returns the blocks whose `name` selects an entry, with their tables."""
  # Slow imports that only this function needs.
  from gan_jax.games.losses import LOSSES
  from gan_jax.models import MODELS
  from gan_jax.training.optimizers import OPTIMIZERS

  return {
    'game.loss': LOSSES,
    'model.disc': MODELS.disc,
    'model.encoder': MODELS.disc,
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
  """Removes the keys of a block that its new entry does not accept."""
  block = config
  for part in path.split('.'):
    block = block[part]
  if block.name not in table and not is_code(block.name):
    return []  # an error with the valid names follows
  row = choose_or_import(f'config.{path}.name', block.name, table)
  taken = {'name', 'learning_rate', *accepts(row)}
  left = [k for k in block if k not in taken and f'{path}.{k}' not in typed]
  with config.unlocked():
    for key in left:
      del block[key]
  names = ', '.join(f'{path}.{key}' for key in left)
  return [f'{path}.name={block.name} does not take {names}'] if left else []


def _without_initial(flat: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
  for key in ('init.players', 'init.state'):
    if key in flat and flat.get('init.source') is None:
      yield key, 'the run has no initial weights: set --init'
  if flat.get('init.state') and 'init.players' in flat:
    yield 'init.players', 'config.init.state takes the whole state'


def without_effect(flat: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
  """Yields the keys of a flat config that have no effect, and the reasons."""
  for key in flat:
    block, _, leaf = key.rpartition('.')
    if leaf != 'weight' and flat.get(f'{block}.weight') == 0:
      yield key, f'config.{block}.weight is 0'
    if leaf == 'lowprec' and flat.get('precision') == 'float32':
      yield key, 'config.precision is float32'
    if leaf == 'negative_slope' and flat.get(f'{block}.activation') == 'relu':
      yield key, f'config.{block}.activation is relu'
  yield from _without_initial(flat)
  segments = [
    segment if isinstance(segment, Mapping) else {}
    for segment in flat.get('schedule') or ({},)
  ]
  scheduled = [segment.get('values', {}) for segment in segments]
  for key in flat:
    if all(key in values for values in scheduled):
      yield key, 'config.schedule sets it: change the schedule in the file'
  for key in ('batch_size', 'gen_batch_size', 'disc_steps'):
    if all(key in segment for segment in segments):
      yield key, 'each segment of config.schedule has its own'
