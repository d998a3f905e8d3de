"""Looks up functions and modules by the names in a config."""

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax

from gan_jax.errors import UserError, suggest, where_in

T = TypeVar('T')

# FILE.py:NAME, or MODULE:NAME.
CODE = re.compile(r'([\w./~-]+\.py|[A-Za-z_][\w.]*):[A-Za-z_]\w*')
# Keys that name data sources, as NAME:PATH.
SOURCE_KEYS = ('data.source', 'data.a', 'data.b')


def choose(
  what: str, name: str, table: Mapping[str, T], or_else: str = ''
) -> T:
  """Looks up a name of a config in `table`.

  Args:
    what: Names the key in messages: `config.on_divergence`.
    name: A name in `table`.
    table: Rows by name.
    or_else: What else is valid, for the message.

  Raises:
    UserError: The name is unknown; the message lists the valid names.
  """
  if name not in table:
    raise UserError(
      f'unknown {what} {name!r}{suggest(name, table)} '
      f'(valid: {", ".join(sorted(table))}{or_else})'
    )
  return table[name]


def choose_or_import(what: str, name: str, table: Mapping[str, T]) -> T:
  """Looks up a name in `table`, or imports a row of the user's own.

  Args:
    what: Names the key in messages: `config.game.latent`.
    name: A name in `table`; FILE.py:NAME or MODULE:NAME runs that code. A name
      of the latter form must be a value of the config, so that `code_names`
      finds it.
    table: Rows by name.

  Raises:
    UserError: The name is unknown, or cannot be imported.
  """
  if name not in table and is_code(name):
    return _import_row(what, name)
  return choose(what, name, table, or_else=', or FILE.py:NAME')


def is_code(name: Any) -> bool:
  """Whether a name has the form FILE.py:NAME or MODULE:NAME."""
  return isinstance(name, str) and bool(CODE.fullmatch(name))


def code_names(flat: Mapping[str, Any]) -> list[str]:
  """The values in a flat config that would be imported.

  A data source is one only with a file: NAME:PATH is its usual form.
  """
  found = []
  for key, value in flat.items():
    if key == 'evaluation.features':
      continue  # imported only where a run is evaluated, and guarded there
    found += [
      name
      for name in jax.tree.leaves(value)
      if is_code(name) and (key not in SOURCE_KEYS or '.py:' in name)
    ]
  return found


def _import_row(what: str, name: str) -> Any:
  """Imports FILE.py:NAME or MODULE:NAME; runs the file, once."""
  module_name, _, attribute = name.rpartition(':')
  try:
    if module_name.endswith('.py'):
      module = _import_file(Path(module_name).expanduser().resolve())
    else:
      module = importlib.import_module(module_name)
    return getattr(module, attribute)
  except UserError:
    raise
  except Exception as error:  # of the user's code
    where = where_in(module_name, error)
    raise UserError(
      f'{what}={name!r} cannot be imported from {Path.cwd()}: {where}: '
      f'{type(error).__name__}: {error}'
    ) from error


def _import_file(path: Path) -> Any:
  """Imports a file by its own name, so that other processes find it too."""
  if not path.is_file():
    raise UserError(f'there is no file {path}: name a Python file')
  if str(path.parent) not in sys.path:
    sys.path.insert(0, str(path.parent))
  module = importlib.import_module(path.stem)
  if Path(getattr(module, '__file__', None) or '').resolve() != path:
    raise UserError(
      f'{path} has the name of another module, {module.__name__}: rename it'
    )
  return module


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
  make = choose_or_import(f'{what}.name', name, table)
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
