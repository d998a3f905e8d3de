"""Makes an experiment's data ready, without training."""

from pathlib import Path

from ml_collections import ConfigDict

from gan_jax import config as cfg
from gan_jax import data


def prepare(config: ConfigDict, workdir: str | Path) -> None:
  """Downloads and prepares what the experiment reads, and says what there is.

  Nothing is written to `workdir`.
  """
  cfg.check(config)
  data.prepare(config)
  print(data.describe(config, data.make(config)))
