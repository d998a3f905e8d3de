"""What a user can put right is told in one line, without a traceback."""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

T = TypeVar('T')


class UserError(ValueError):
  """A mistake of the user's: one line, what is wrong and what to do."""


def nearest(name: str, valid: Iterable[str]) -> str:
  """`; did you mean 'x'?` for the valid name nearest to `name`, or ``."""
  close = difflib.get_close_matches(name, list(valid), n=1)
  return f'; did you mean {close[0]!r}?' if close else ''


def choose(what: str, name: str, table: Mapping[str, T]) -> T:
  """Looks up `name` in `table`; an unknown name lists the valid ones."""
  if name not in table:
    raise UserError(
      f'unknown {what} {name!r}{nearest(name, table)} '
      f'(valid: {", ".join(sorted(table))})'
    )
  return table[name]


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
  """
  block = dict(block)
  make = choose(f'{what}.name', block.pop('name'), table)
  parameters = inspect.signature(make).parameters
  for key in block:
    if key not in parameters:
      valid = sorted(set(parameters) - {'parent', 'name'} - set(given))
      raise UserError(
        f'{what} has no key {key!r}{nearest(key, valid)} '
        f'(valid: {", ".join(valid)})'
      )
  given = {key: value for key, value in given.items() if key in parameters}
  return make(**{**given, **block})
