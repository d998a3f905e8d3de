"""DCGAN on the 60,000 training digits of MNIST, at 32x32.

As dcgan_celeba.py, but grey, at half the resolution.

  python launch.py --config=experiments/dcgan_mnist.py

downloads them, or takes them from where the four official .gz files are:
  --config.data.files=/path/to/folder
Fashion-MNIST: --config.data.source=fashion_mnist
Scores of a smaller one are in docs/results/digits.md: of G's moving average,
which the paper does not have.
"""

from ml_collections import ConfigDict

from experiments import dcgan_celeba


def get_config(arg: str = '') -> ConfigDict:
  """The config; arg 'tiny': seconds on a laptop, on embedded digits."""
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
