"""What the trials of a sweep vary: lists, ranges, and what goes together.

A space is plain data, key by key of the config:

  'disc_steps': [1, 2, 5]                                 one of a list
  'optimizer.gen.b1': {'low': 0.0, 'high': 0.9}           a range
  'batch_size': {'low': 16, 'high': 256, 'log': True}     a range of integers
  'penalty': {                                            one of several blocks
    'none': {},
    'r1': {'game.penalties.r1.weight': [1.0, 10.0]},
    'clip': {'game.clip': 0.01, 'disc_steps': 5},
  }

The name of a choice between blocks ('penalty') is no key of the config; a block
is a space again, in which a plain value is simply set.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from optuna.trial import BaseTrial

Space = Mapping[str, Any]


def is_range(choice: Any) -> bool:
  """Whether it is {'low': ..., 'high': ...}, not a choice between blocks."""
  return isinstance(choice, Mapping) and 'low' in choice


def is_blocks(choice: Any) -> bool:
  """Whether it is a choice between blocks."""
  return isinstance(choice, Mapping) and not is_range(choice)


def suggest(trial: BaseTrial, space: Space, prefix: str = '') -> dict[str, Any]:
  """The overrides of a trial, by the key of the config.

  Args:
    trial: Is asked for each choice, by a name of its own: the same key in
      another block is another choice.
    space: As above.
    prefix: Of those names.
  """
  found: dict[str, Any] = {}
  for key, choice in space.items():
    name = prefix + key
    if is_range(choice):
      found[key] = _in_range(trial, name, choice)
    elif is_blocks(choice):
      chosen = trial.suggest_categorical(name, list(choice))
      found |= suggest(trial, choice[chosen], f'{chosen}:')
    elif isinstance(choice, list):
      values = {label(value): value for value in choice}
      found[key] = values[trial.suggest_categorical(name, list(values))]
    else:
      found[key] = choice
  return found


def _in_range(trial: BaseTrial, name: str, choice: Space) -> float | int:
  ends = choice['low'], choice['high']
  whole = all(isinstance(end, int) for end in ends)
  ask = trial.suggest_int if whole else trial.suggest_float
  return ask(name, *ends, log=choice.get('log', False))


def label(value: Any) -> Any:
  """The value as the engine keeps it: a tuple would come back as a list."""
  plain = value is None or isinstance(value, bool | int | float | str)
  return value if plain else repr(value)


def has_range(space: Space) -> bool:
  """Whether it is searched, since not all of it can be listed."""
  return any(
    is_range(choice)
    or (is_blocks(choice) and any(map(has_range, choice.values())))
    for choice in space.values()
  )


def grid(space: Space, prefix: str = '') -> list[dict[str, Any]]:
  """The product of all lists, the last one varying fastest.

  Returns:
    What `suggest` is to be answered, trial by trial.
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
  """A few overrides in which each value, and each end of a range, occurs."""
  columns = []
  for key, choice in space.items():
    if is_blocks(choice):
      column = [some for block in choice.values() for some in cover(block)]
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
  """The keys of the config that are set, a key of several blocks once each."""
  for key, choice in space.items():
    if is_blocks(choice):
      for block in choice.values():
        yield from keys(block)
    else:
      yield key


def chosen(
  params: Mapping[str, Any], space: Space, prefix: str = ''
) -> dict[str, str]:
  """Which blocks a trial has, by the name of the choice."""
  found: dict[str, str] = {}
  for key, choice in space.items():
    if is_blocks(choice):
      found[key] = params[prefix + key]
      block = choice[found[key]]
      found |= chosen(params, block, f'{found[key]}:')
  return found


def titles(space: Space) -> list[str]:
  """All that a trial may be told by: keys, and choices between blocks."""
  found: dict[str, None] = {}
  for key, choice in space.items():
    found[key] = None
    if is_blocks(choice):
      for block in choice.values():
        found |= dict.fromkeys(titles(block))
  return list(found)
