"""DCGAN on CIFAR-10 at 32x32.

As dcgan_celeba.py, at half the resolution, mirrored at random.

  python launch.py --config=experiments/dcgan_cifar10.py

downloads the 50,000 training images, or takes them from where
cifar-10-binary.tar.gz is:
  --config.data.files=/path/to/folder
Scores, of G's moving average, which the paper does not have: not yet measured.
"""

from ml_collections import ConfigDict

from experiments import dcgan_celeba


def get_config(arg: str = '') -> ConfigDict:
  """The config; arg 'tiny': seconds on a laptop, on embedded digits."""
  config = dcgan_celeba.get_config(arg)
  config.data.flip = True
  if arg != 'tiny':
    config.data.source = 'cifar10'
    config.data.split = 'train'
    config.data.crop = None
    config.data.resolution = 32
    config.total_images = 100 * 50_000
  return config
