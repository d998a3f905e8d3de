"""Makes an experiment's data ready, without training."""

from pathlib import Path

from ml_collections import ConfigDict

from gan_jax import data
from gan_jax.training.check import check_config


def prepare(config: ConfigDict, workdir: str | Path) -> None:
  """Downloads and prepares what the experiment reads, and says what there is.

  Nothing is written to `workdir`.
  """
  check_config(config)
  data.prepare(config)
  print(data.describe(config, data.make(config)))
