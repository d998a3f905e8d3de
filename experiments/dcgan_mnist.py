"""DCGAN on the 60,000 training digits of MNIST, at 32x32.

The settings are those of dcgan_celeba.py, at half the resolution and in grey.

  python launch.py --config=experiments/dcgan_mnist.py

The command downloads the digits, or reads the four official .gz files from
  --config.data.files=/path/to/folder
Fashion-MNIST: --config.data.source=fashion_mnist
Scores of smaller networks are in docs/results/digits.md; they use G's moving
average, which the paper does not have.
"""

from ml_collections import ConfigDict

from experiments import dcgan_celeba


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg 'tiny': seconds on a laptop, with digits."""
  config = dcgan_celeba.get_config(arg)
  config.data.channels = 1
  config.evaluation.metrics = ('fid', 'classes', 'precision_recall')
  config.evaluation.features = 'digits'
  if arg != 'tiny':
    config.data.source = 'mnist'
    config.data.split = 'train'
    config.data.crop = None
    config.data.resolution = 32
    config.evaluation.every_images = 150_000
    config.evaluation.metrics += ('memorisation',)
    config.evaluation.held_out = 'test'
    config.total_images = 25 * 60_000
  return config
