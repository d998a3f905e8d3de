"""Two interlocking half circles.

All other settings are those of toy_ring.py.

  python launch.py --config=experiments/toy_moons.py
"""

from ml_collections import ConfigDict

from experiments import toy_ring


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg 'tiny': seconds on a laptop."""
  config = toy_ring.get_config(arg)
  config.data.source = 'toy:moons'
  return config
