"""Checks the search space of a sweep, and the configs of its trials."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import optuna
from ml_collections import ConfigDict

from gan_jax import config as cfg
from gan_jax import games
from gan_jax.errors import UserError
from gan_jax.metrics import features as networks
from gan_jax.sweep import space as spaces
from gan_jax.training import evaluations
from gan_jax.training.check import check_config
from gan_jax.training.overrides import override, settle

# At most this many trials of a grid are checked one by one. Of the rest, and of
# a search, a few trials that contain each value are checked.
MAX_CHECKED = 256


def check_space(
  where: str,
  space: spaces.Space,
  fixed: Mapping[str, Any],
  config: ConfigDict,
  overrides: Mapping[str, Any],
) -> None:
  """Refuses an empty space, and keys that are unknown or set twice."""
  if not isinstance(space, Mapping) or not space:
    raise UserError(
      f"{where} varies nothing: add 'space': {{'KEY': [VALUE, ...]}}"
    )
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
        raise UserError(f'{where} varies {key}: remove --config.{key}')
      taken[key] = repr(title)


def _check_choice(where: str, title: str, choice: Any) -> None:
  """Refuses a choice that is not a list, a range, or blocks."""
  if spaces.is_range(choice):
    _check_range(where, title, choice)
  elif spaces.is_blocks(choice):
    for block in choice.values():
      if not isinstance(block, Mapping):
        raise UserError(
          f"{where}: {title!r} must be a range with 'low' and 'high', or "
          f'blocks that are dicts of keys, not {block!r}'
        )
      for key, inner in block.items():
        if isinstance(inner, list | Mapping):
          _check_choice(where, key, inner)
  elif not isinstance(choice, list):
    raise UserError(
      f"{where}: {title!r} has a single value: move {choice!r} to 'fixed'"
    )
  elif not choice or len(set(map(spaces.label, choice))) < len(choice):
    raise UserError(f'{where}: {title!r} must list different values')


def _check_range(where: str, title: str, choice: Mapping[str, Any]) -> None:
  ends = choice['low'], choice.get('high')
  numbers = all(type(end) in (int, float) for end in ends)
  known = not choice.keys() - {'low', 'high', 'log'}
  if not (known and numbers and ends[0] < ends[1]):
    raise UserError(
      f"{where}: {title!r} must be {{'low': A, 'high': B}} with A below B, "
      f"optionally with 'log': True, not {dict(choice)}"
    )
  if choice.get('log') and not ends[0] > 0:
    raise UserError(f'{where}: {title!r} is on a log scale: set low above 0')


def check_trials(
  where: str,
  space: spaces.Space,
  config: ConfigDict,
  typed: Iterable[str],
  score: str,
  remote_trials: bool,
) -> None:
  """Refuses a space with a trial that cannot run.

  Args:
    where: Names the sweep in messages.
    space: The varied keys.
    config: The experiment's, with the overrides of all trials.
    typed: The keys that all trials override.
    score: The metric that ranks trials, as `metrics.jsonl` names it.
    remote_trials: Whether trials run on other machines, which may have weights
      of feature networks that this machine does not have.
  """
  known: dict[Any, tuple[str, ...]] = {}
  listed = spaces.cover(space)
  if not spaces.has_range(space):
    points = spaces.grid(space)[:MAX_CHECKED]
    fixed = optuna.trial.FixedTrial
    listed += [spaces.suggest(fixed(point), space) for point in points]
  for overrides in listed:
    trial = copy.deepcopy(config)
    for key, value in overrides.items():
      override(where, trial, key, value)
    try:
      settle(trial, {*typed, *overrides})
      check_config(trial)
      games.make(trial)
      if trial.evaluation.every_images is not None and not remote_trials:
        block = trial.evaluation
        key = trial.data.to_json(), block.metrics, block.features
        if key not in known:
          known[key] = scores_of(trial)
        _check_score(score, known[key])
    except UserError as error:
      values = ', '.join(f'{key}={x}' for key, x in overrides.items())
      raise UserError(f'{where}, with {values}: {error}') from error


def scores_of(config: ConfigDict) -> tuple[str, ...]:
  """Returns the scores that a run gets; loads their features.

  Raises:
    UserError: A metric is unknown, or its weights are missing.
  """
  block = config.evaluation
  choice = evaluations.choose_for(config, block.metrics, block.features)
  if choice.features is not None:
    networks.make(choice.features)
  return choice.scores


def _check_score(score: str, known: Sequence[str]) -> None:
  """Refuses to rank by a score that the trials do not measure."""
  name = score.removeprefix('eval/')
  if name == score or name in known:
    return
  if 'swd' in known and name.startswith('swd_'):
    return
  raise UserError(
    f'{score} is not measured (measured: {", ".join(known)}): add its metric '
    'to config.evaluation.metrics'
  )
