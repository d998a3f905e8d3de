"""What a sweep's space must be, and the configs that come of it."""

import copy
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import optuna
from ml_collections import ConfigDict

from gan_jax import config as cfg
from gan_jax import games
from gan_jax.bounds import bound_of
from gan_jax.errors import UserError
from gan_jax.metrics import features as networks
from gan_jax.sweep import space as spaces
from gan_jax.training import evaluations
from gan_jax.training.check import check_config
from gan_jax.training.overrides import settle

# Every trial of a grid up to this size has its config checked; of a larger one,
# and of a search, some in which each value occurs.
CHECKED = 256


def check_space(
  where: str,
  space: spaces.Space,
  fixed: Mapping[str, Any],
  config: ConfigDict,
  overrides: Mapping[str, Any],
) -> None:
  """Refuses what varies nothing, and keys that there are not, or twice."""
  if not isinstance(space, Mapping) or not space:
    raise UserError(f"{where} varies nothing: 'space': {{'KEY': [VALUE, ...]}}")
  default = cfg.flatten(config.to_dict())
  taken = {key: "'fixed'" for key in fixed}
  for key in fixed:
    cfg.check_key(where, key, default)
  for title, choice in space.items():
    _check_choice(where, title, choice)
    for key in dict.fromkeys(spaces.keys({title: choice})):
      cfg.check_key(where, key, default)
      if key in taken:
        raise UserError(f'{where} sets {key} by {taken[key]} and {title!r}')
      if key in overrides:
        raise UserError(f'{where} varies {key}: leave --config.{key} out')
      taken[key] = repr(title)


def _check_choice(where: str, title: str, choice: Any) -> None:
  """Refuses what is neither a list, nor a range, nor blocks."""
  if spaces.is_range(choice):
    _check_range(where, title, choice)
  elif spaces.is_blocks(choice):
    for block in choice.values():
      if not isinstance(block, Mapping):
        raise UserError(
          f"{where}: a range of {title!r} has 'low' and 'high'; blocks are "
          f'dicts of keys, not {block!r}'
        )
      for key, inner in block.items():
        if isinstance(inner, list | Mapping):
          _check_choice(where, key, inner)
  elif not isinstance(choice, list):
    raise UserError(
      f"{where}: {title!r} does not vary: {choice!r} belongs into 'fixed'"
    )
  elif not choice or len(set(map(spaces.label, choice))) < len(choice):
    raise UserError(f'{where}: {title!r} is to list values, each once')


def _check_range(where: str, title: str, choice: Mapping[str, Any]) -> None:
  ends = choice['low'], choice.get('high')
  numbers = all(type(end) in (int, float) for end in ends)
  known = not choice.keys() - {'low', 'high', 'log'}
  if not (known and numbers and ends[0] < ends[1]):
    raise UserError(
      f"{where}: {title!r} is to be {{'low': A, 'high': B}}, A below B, "
      f"perhaps with 'log': True, not {dict(choice)}"
    )
  if choice.get('log') and not ends[0] > 0:
    raise UserError(f'{where}: {title!r} is on a log scale: low above 0')


def override(where: str, config: ConfigDict, key: str, value: Any) -> None:
  """Overrides a key, as its flag would."""
  default = cfg.flatten(config.to_dict())[key]
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
  raise UserError(f'{where}: {key}={value!r} is not of the kind of {default!r}')


def check_trials(
  where: str,
  space: spaces.Space,
  config: ConfigDict,
  typed: Iterable[str],
  score: str,
  elsewhere: bool,
) -> None:
  """Refuses a space that has trials of which no run can be made.

  Args:
    where: For the message.
    space: What varies.
    config: The experiment's, with what all trials override.
    typed: The keys that all trials override.
    score: What ranks the trials, as `metrics.jsonl` has it.
    elsewhere: Whether trials run on other machines, which may have features
      that this one has not.
  """
  measured = functools.cache(_measured)
  listed = spaces.cover(space)
  if not spaces.has_range(space):
    whole = spaces.grid(space)[:CHECKED]
    ask = optuna.trial.FixedTrial
    listed += [spaces.suggest(ask(point), space) for point in whole]
  for overrides in listed:
    trial = copy.deepcopy(config)
    for key, value in overrides.items():
      override(where, trial, key, value)
    try:
      settle(trial, {*typed, *overrides})
      check_config(trial)
      games.make(trial)
      if trial.evaluation.every_images is not None and not elsewhere:
        block = trial.evaluation
        known = measured(trial.data.source, block.metrics, block.features)
        _check_score(score, known)
    except UserError as error:
      told = ', '.join(f'{key}={value}' for key, value in overrides.items())
      raise UserError(f'{where}, of {told}: {error}') from error


def _measured(
  source: str, metrics: tuple[str, ...], features: str | None
) -> tuple[str, ...]:
  """The scores that a run of the data gets; their features are looked for."""
  choice = evaluations.choose_for(source, metrics, features)
  if choice.features is not None:
    networks.make(choice.features)
  return choice.scores


def _check_score(score: str, known: Sequence[str]) -> None:
  """Refuses to rank by an evaluation's score that the trials do not get."""
  name = score.removeprefix('eval/')
  if name == score or name in known:
    return
  if 'swd' in known and name.startswith('swd_'):
    return
  raise UserError(
    f'{score} is not measured (there: {", ".join(known)}): name its metric in '
    'config.evaluation.metrics'
  )
