"""Reads experiment files: `get_config(arg)` and `sweep(arg)`.

An experiment is named FILE.py or FILE.py:ARGUMENT.
"""

import contextlib
import inspect
import runpy
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from gan_jax.config import flatten
from gan_jax.errors import UserError, suggest, where_in


def read_config(experiment: str) -> ConfigDict:
  """Returns the config of an experiment.

  Raises:
    UserError: The file does not exist, or its `get_config` fails.
  """
  path, _, argument = experiment.partition(':')
  if not Path(path).is_file():
    hint = suggest(path, map(str, Path(path).parent.glob('*.py')))
    raise UserError(f'there is no experiment file {path!r}{hint}')
  try:
    with _importable(Path(path)):
      get_config = runpy.run_path(path)['get_config']
      config = get_config(*filter(None, [argument]))
  except Exception as error:
    raise UserError(
      f'get_config of {where_in(path, error)} failed: '
      f'{type(error).__name__}: {error}'
    ) from error
  if not isinstance(config, ConfigDict):
    raise UserError(f'get_config of {path} must return a ConfigDict')
  return config


def read_settings(experiment: str) -> dict[str, Any]:
  """Returns the settings of an experiment, flat; see `read_config`."""
  return flatten(read_config(experiment).to_dict())


@contextlib.contextmanager
def _importable(path: Path) -> Iterator[None]:
  """Lets a file import `experiments`, the folder that it may be in."""
  root = str(path.resolve().parents[1])
  if root in sys.path:
    yield
    return
  sys.path.append(root)
  try:
    yield
  finally:
    sys.path.remove(root)


def read_sweeps(experiment: str) -> dict[str, Mapping[str, Any]]:
  """Returns the descriptions of the experiment's sweeps, by name.

  `sweep(arg)` gets the argument of the experiment; a `def sweep()` serves all
  arguments.

  Raises:
    UserError: The file has no sweep, or its `sweep` fails.
  """
  path, _, argument = experiment.partition(':')
  try:
    describe = runpy.run_path(path).get('sweep', dict)
    takes_argument = argument and inspect.signature(describe).parameters
    known = describe(argument) if takes_argument else describe()
    known = {name: dict(block) for name, block in known.items()}
  except Exception as error:
    raise UserError(
      f'sweep() of {where_in(path, error)} failed: {type(error).__name__}: '
      f'{error}'
    ) from error
  if not known:
    raise UserError(
      f'{experiment} declares no sweep: add a def sweep() that returns '
      "{'NAME': {'space': {'KEY': [VALUE, ...]}}}"
    )
  return known
