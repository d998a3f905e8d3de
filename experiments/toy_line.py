"""A line in the plane: data of fewer dimensions than it lies in.

As toy_ring.py otherwise.

  python launch.py --config=experiments/toy_line.py
"""

from ml_collections import ConfigDict

from experiments import toy_ring


def get_config(arg: str = '') -> ConfigDict:
  """The config; arg 'tiny': seconds on a laptop."""
  config = toy_ring.get_config(arg)
  config.data.source = 'toy:line'
  return config
