"""What a user can put right is told in one line, without a traceback."""

import difflib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar('T')

# Exit codes of launch.py that a sweep tells apart: the game has diverged; and
# SIGTERM came and all is saved (EX_TEMPFAIL), so run it again.
DIVERGED, PREEMPTED = 3, 75


class UserError(ValueError):
  """A mistake of the user's: one line, what is wrong and what to do."""


class Preempted(Exception):
  """The run was told to leave (SIGTERM); its state is saved."""


class Diverged(UserError):
  """A loss or a gradient is not finite."""


def warn(message: str) -> None:
  """Tells the user, in a line, what may not be as intended."""
  print(f'Warning: {message}', file=sys.stderr, flush=True)


def where_in(path: str, error: Exception) -> str:
  """The file, and the line of it that led to the error."""
  lines = [
    frame.lineno
    for frame in traceback.extract_tb(error.__traceback__)
    if Path(frame.filename) == Path(path)
  ]
  return f'{path}:{lines[-1]}' if lines else path


def nearest(name: str, valid: Iterable[str]) -> str:
  """`; did you mean 'x'?` for the valid name nearest to `name`, or ``.

  Of names with dots those in the same block are looked at first, and there
  only what comes after the last dot.
  """
  valid = list(valid)
  block, dot, leaf = name.rpartition('.')
  siblings = [x for x in valid if x.rpartition('.')[0] == block]
  leaves = [x.rpartition('.')[2] for x in siblings]
  close = [block + dot + x for x in difflib.get_close_matches(leaf, leaves, 1)]
  if not siblings:
    close = difflib.get_close_matches(name, valid, 1, cutoff=0.8)
  return f'; did you mean {close[0]!r}?' if close else ''


def choose(what: str, name: str, table: Mapping[str, T]) -> T:
  """Looks up `name` in `table`; an unknown name lists the valid ones."""
  if name not in table:
    raise UserError(
      f'unknown {what} {name!r}{nearest(name, table)} '
      f'(valid: {", ".join(sorted(table))})'
    )
  return table[name]


def check_keys(where: str, keys: Iterable[str], valid: Sequence[str]) -> None:
  """Refuses a key that is none of the valid ones, which are listed."""
  for key in keys:
    if key not in valid:
      raise UserError(
        f'{where} has no key {key!r}{nearest(key, valid)} '
        f'(valid: {", ".join(valid)})'
      )


def build(
  what: str, table: Mapping[str, Callable[..., T]], block: Mapping[str, Any],
  **given: Any,
) -> T:  # fmt: skip
  """Calls what `block.name` names in `table` with the rest of the block.

  Args:
    what: Where the block stands, for the message: `config.model.gen`.
    table: Names to functions or modules.
    block: `name`, and arguments of what it names.
    **given: Further arguments, passed to what accepts them.

  Raises:
    UserError: There is no such row, or it takes no such argument.
  """
  block = dict(block)
  name = block.pop('name')
  make = choose(f'{what}.name', name, table)
  taken = accepts(make)
  valid = sorted(set(taken) - {'parent', 'name', *given})
  for key in block:
    if key not in valid:
      raise UserError(
        f'{what} has no key {key!r}{nearest(key, valid)} '
        f'(valid for {name}: {", ".join(valid) or "none"})'
      )
  return make(**{k: v for k, v in given.items() if k in taken}, **block)


def accepts(make: Callable[..., Any]) -> list[str]:
  """The names of the arguments that a function, or a module, takes."""
  return list(inspect.signature(make).parameters)
