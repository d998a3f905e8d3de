"""A drawing: where there is ink, there are points.

Any picture can be drawn from:
  --config.data.source=drawing:/path/to/picture.png

As toy_ring.py otherwise.

  python launch.py --config=experiments/toy_drawing.py
"""

from ml_collections import ConfigDict

from experiments import toy_ring


def get_config(arg: str = '') -> ConfigDict:
  """The config; arg 'tiny': seconds on a laptop."""
  config = toy_ring.get_config(arg)
  config.data.source = 'drawing:experiments/drawing.png'
  return config
