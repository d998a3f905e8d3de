"""The conditional GAN on the 60,000 training digits of MNIST.

The settings are those of cgan_digits.py.

  python launch.py --config=experiments/cgan_mnist.py

The command downloads the digits, or reads the four official .gz files from
  --config.data.files=/path/to/folder
"""

from ml_collections import ConfigDict

from experiments import cgan_digits


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg 'tiny': seconds on a laptop."""
  config = cgan_digits.get_config(arg)
  if arg != 'tiny':
    config.data.source = 'mnist'
  return config
