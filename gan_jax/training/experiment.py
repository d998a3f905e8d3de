"""The config of an experiment with overrides, for notebooks."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from gan_jax.config import check_key, flatten
from gan_jax.experiment_file import read_config
from gan_jax.training.overrides import override, settle


def experiment(filename: str, overrides: Mapping[str, Any]) -> ConfigDict:
  """Returns the config of an experiment with overrides, as by its flags."""
  config = read_config(filename)
  known = flatten(config.to_dict())
  path = filename.partition(':')[0]
  for key, value in overrides.items():
    check_key(path, key, known)
    override(path, config, key, value)
  settle(config, overrides)
  return config
