"""Names that a config chooses rows of a table by."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from gan_jax.errors import UserError, suggest

T = TypeVar('T')


def choose(what: str, name: str, table: Mapping[str, T]) -> T:
  """Looks up `name` in `table`; an unknown name lists the valid ones."""
  if name not in table:
    raise UserError(
      f'unknown {what} {name!r}{suggest(name, table)} '
      f'(valid: {", ".join(sorted(table))})'
    )
  return table[name]


def check_keys(where: str, keys: Iterable[str], valid: Sequence[str]) -> None:
  """Refuses a key that is none of the valid ones, which are listed."""
  for key in keys:
    if key not in valid:
      raise UserError(
        f'{where} has no key {key!r}{suggest(key, valid)} '
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
        f'{what} has no key {key!r}{suggest(key, valid)} '
        f'(valid for {name}: {", ".join(valid) or "none"})'
      )
  return make(**{k: v for k, v in given.items() if k in taken}, **block)


def accepts(make: Callable[..., Any]) -> list[str]:
  """The names of the arguments that a function, or a module, takes."""
  return list(inspect.signature(make).parameters)
