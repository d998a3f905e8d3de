"""InfoGAN on CIFAR-10: classes learned without labels.

Chen et al. 2016, "InfoGAN": a categorical code of 10 values and four continuous
codes; the networks are those of dcgan_cifar10.py. (The paper has other data in
colour, and ten categorical codes for faces.)

  python launch.py --config=experiments/infogan_cifar10.py

Scores: not measured yet.
"""

from ml_collections import ConfigDict

from experiments import dcgan_cifar10


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg 'tiny': seconds on a laptop, with digits."""
  config = dcgan_cifar10.get_config(arg)
  config.game.name = 'infogan'
  config.game.categories = 10
  config.game.codes = 4
  config.game.class_weight = 1.0
  config.game.code_weight = 0.1
  return config
