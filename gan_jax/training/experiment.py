"""Reads the config of an experiment file, with overrides."""

import contextlib
import runpy
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from gan_jax.config import check_key, flatten
from gan_jax.errors import UserError, suggest, where_in
from gan_jax.training.overrides import override, settle


def read_experiment(filename: str) -> ConfigDict:
  """Returns the config of an experiment, FILE.py or FILE.py:ARGUMENT.

  Raises:
    UserError: The file does not exist, or its `get_config` fails.
  """
  path, _, argument = filename.partition(':')
  if not Path(path).is_file():
    hint = suggest(path, map(str, Path(path).parent.glob('*.py')))
    raise UserError(f'there is no experiment file {path!r}{hint}')
  try:
    with _importable(Path(path)):
      experiment = runpy.run_path(path)
      config = experiment['get_config'](*filter(None, [argument]))
  except Exception as error:
    raise UserError(
      f'get_config of {where_in(path, error)} failed: '
      f'{type(error).__name__}: {error}'
    ) from error
  if not isinstance(config, ConfigDict):
    raise UserError(f'get_config of {path} must return a ConfigDict')
  return config


def experiment(filename: str, overrides: Mapping[str, Any]) -> ConfigDict:
  """Returns the config of an experiment with overrides, as by its flags."""
  config = read_experiment(filename)
  known = flatten(config.to_dict())
  path = filename.partition(':')[0]
  for key, value in overrides.items():
    check_key(path, key, known)
    override(path, config, key, value)
  settle(config, overrides)
  return config


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
