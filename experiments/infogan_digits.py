"""InfoGAN on 5,000 MNIST digits: classes that nobody labelled.

Chen et al. 2016, "InfoGAN": a categorical code of 10 values and two continuous
codes are parts of G's input, and Q, a head of D, reads them off the fakes. All
other settings are those of vanilla_mnist.py.

  python launch.py --config=experiments/infogan_digits.py

The code of an image: run.encode(images)['class']. Scores: not measured yet.
Dense layers may hide the codes in noise: see docs/how_to/represent.md.
"""

from ml_collections import ConfigDict

from experiments import vanilla_mnist


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg 'tiny': seconds on a laptop."""
  config = vanilla_mnist.get_config(arg)
  config.game.name = 'infogan'
  config.game.categories = 10
  config.game.codes = 2
  config.game.class_weight = 1.0
  config.game.code_weight = 0.1
  return config
