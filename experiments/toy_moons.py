"""Two half circles that reach into each other.

As toy_ring.py otherwise.

  python launch.py --config=experiments/toy_moons.py
"""

from ml_collections import ConfigDict

from experiments import toy_ring


def get_config(arg: str = '') -> ConfigDict:
  """The config; arg 'tiny': seconds on a laptop."""
  config = toy_ring.get_config(arg)
  config.data.source = 'toy:moons'
  return config
