"""Looks up functions and modules by the names in a config."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from gan_jax.errors import UserError, suggest

T = TypeVar('T')


def choose(what: str, name: str, table: Mapping[str, T]) -> T:
  """Looks up `name` in `table`.

  Raises:
    UserError: The name is unknown; the message lists the valid names.
  """
  if name not in table:
    raise UserError(
      f'unknown {what} {name!r}{suggest(name, table)} '
      f'(valid: {", ".join(sorted(table))})'
    )
  return table[name]


def check_keys(where: str, keys: Iterable[str], valid: Sequence[str]) -> None:
  """Refuses an unknown key; the message lists the valid keys."""
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
  """Calls the entry of `table` that `block.name` names.

  Args:
    what: Names the block in messages: `config.model.gen`.
    table: Functions or modules by name.
    block: `name`, and arguments for the entry.
    **given: Further arguments, passed only if the entry accepts them.

  Raises:
    UserError: The name is unknown, or the entry does not take an argument.
  """
  block = dict(block)
  name = block.pop('name')
  make = choose(f'{what}.name', name, table)
  accepted = accepts(make)
  valid = sorted(set(accepted) - {'parent', 'name', *given})
  for key in block:
    if key not in valid:
      raise UserError(
        f'{what} has no key {key!r}{suggest(key, valid)} '
        f'(valid for {name}: {", ".join(valid) or "none"})'
      )
  return make(**{k: v for k, v in given.items() if k in accepted}, **block)


def accepts(make: Callable[..., Any]) -> list[str]:
  """Returns the names of the arguments of a function or module."""
  return list(inspect.signature(make).parameters)
