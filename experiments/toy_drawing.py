"""A drawing as a density: points lie where there is ink.

Any picture can be the data:
  --config.data.source=drawing:/path/to/picture.png

All other settings are those of toy_ring.py.

  python launch.py --config=experiments/toy_drawing.py
"""

from ml_collections import ConfigDict

from experiments import toy_ring


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg 'tiny': seconds on a laptop."""
  config = toy_ring.get_config(arg)
  config.data.source = 'drawing:experiments/drawing.png'
  return config
