"""Prepares the data of an experiment, without training."""

from pathlib import Path

from ml_collections import ConfigDict

from gan_jax import data
from gan_jax.training.check import check_config


def prepare(config: ConfigDict, workdir: str | Path) -> None:
  """Downloads and prepares the experiment's data, and prints a description.

  Nothing is written to `workdir`.
  """
  check_config(config)
  data.prepare(config)
  print(data.describe(config, data.make(config)))
