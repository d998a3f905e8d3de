"""The search space of a sweep: lists, ranges, and blocks of keys.

A space is plain data, with the keys of the config:

  'disc_steps': [1, 2, 5]                                 a list of values
  'optimizer.gen.b1': {'low': 0.0, 'high': 0.9}           a range of numbers
  'batch_size': {'low': 16, 'high': 256, 'log': True}     a range of integers
  'penalty': {                                            a choice of blocks
    'none': {},
    'r1': {'game.penalties.r1.weight': [1.0, 10.0]},
    'clip': {'game.clip': 0.01, 'disc_steps': 5},
  }

The name of a choice of blocks ('penalty') is not a key of the config. A block
is a space itself, in which a plain value is a fixed value.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from optuna.trial import BaseTrial

Space = Mapping[str, Any]


def is_range(choice: Any) -> bool:
  """Returns whether a choice is a range, {'low': ..., 'high': ...}."""
  return isinstance(choice, Mapping) and 'low' in choice


def is_blocks(choice: Any) -> bool:
  """Returns whether a choice is a choice of blocks."""
  return isinstance(choice, Mapping) and not is_range(choice)


def suggest(trial: BaseTrial, space: Space, prefix: str = '') -> dict[str, Any]:
  """Asks Optuna for each choice and returns the overrides of a trial, by key.

  Args:
    trial: Suggests a value for each parameter. The same key in two blocks is
      two parameters with different names.
    space: See the top of this file.
    prefix: The prefix of the parameters' names.
  """
  found: dict[str, Any] = {}
  for key, choice in space.items():
    name = prefix + key
    if is_range(choice):
      found[key] = _suggest_number(trial, name, choice)
    elif is_blocks(choice):
      chosen = trial.suggest_categorical(name, list(choice))
      found |= suggest(trial, choice[chosen], f'{chosen}:')
    elif isinstance(choice, list):
      values = {label(value): value for value in choice}
      found[key] = values[trial.suggest_categorical(name, list(values))]
    else:
      found[key] = choice
  return found


def _suggest_number(trial: BaseTrial, name: str, choice: Space) -> float | int:
  ends = choice['low'], choice['high']
  integers = all(isinstance(end, int) for end in ends)
  suggest = trial.suggest_int if integers else trial.suggest_float
  return suggest(name, *ends, log=choice.get('log', False))


def label(value: Any) -> Any:
  """Returns a value as Optuna can store it: a tuple becomes a string."""
  plain = value is None or isinstance(value, bool | int | float | str)
  return value if plain else repr(value)


def has_range(space: Space) -> bool:
  """Returns whether a space has a range, so that it is searched."""
  return any(
    is_range(choice)
    or (is_blocks(choice) and any(map(has_range, choice.values())))
    for choice in space.values()
  )


def grid(space: Space, prefix: str = '') -> list[dict[str, Any]]:
  """Returns the product of all lists; the last list varies fastest.

  Returns:
    Optuna's parameters of each trial.
  """
  points: list[dict[str, Any]] = [{}]
  for key, choice in space.items():
    name = prefix + key
    if is_blocks(choice):
      options = [
        {name: chosen, **inner}
        for chosen, block in choice.items()
        for inner in grid(block, f'{chosen}:')
      ]
    elif isinstance(choice, list):
      options = [{name: label(value)} for value in choice]
    else:
      continue
    points = [{**point, **option} for point in points for option in options]
  return points


def cover(space: Space) -> list[dict[str, Any]]:
  """Returns a few overrides that contain each value and each end of a range."""
  columns = []
  for key, choice in space.items():
    if is_blocks(choice):
      column = [row for block in choice.values() for row in cover(block)]
    elif is_range(choice):
      column = [{key: choice['low']}, {key: choice['high']}]
    else:
      values = choice if isinstance(choice, list) else [choice]
      column = [{key: value} for value in values]
    columns.append(column)
  rows = max(map(len, columns), default=1)
  at = lambda row, column: column[min(row, len(column) - 1)]
  return [
    {k: v for column in columns for k, v in at(row, column).items()}
    for row in range(rows)
  ]


def keys(space: Space) -> Iterator[str]:
  """Yields the keys that a space sets, once for each block that sets them."""
  for key, choice in space.items():
    if is_blocks(choice):
      for block in choice.values():
        yield from keys(block)
    else:
      yield key


def chosen_blocks(
  params: Mapping[str, Any], space: Space, prefix: str = ''
) -> dict[str, str]:
  """Returns the blocks that a trial has chosen, by the name of the choice."""
  found: dict[str, str] = {}
  for key, choice in space.items():
    if is_blocks(choice):
      found[key] = params[prefix + key]
      block = choice[found[key]]
      found |= chosen_blocks(params, block, f'{found[key]}:')
  return found


def titles(space: Space) -> list[str]:
  """Returns all names that describe a trial: keys and choices of blocks."""
  found: dict[str, None] = {}
  for key, choice in space.items():
    found[key] = None
    if is_blocks(choice):
      for block in choice.values():
        found |= dict.fromkeys(titles(block))
  return list(found)
