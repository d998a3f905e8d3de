"""DCGAN on CIFAR-10 at 32x32.

The settings are those of dcgan_celeba.py, at half the resolution and with
random mirroring.

  python launch.py --config=experiments/dcgan_cifar10.py

The command downloads the 50,000 training images, or reads
cifar-10-binary.tar.gz from
  --config.data.files=/path/to/folder
Scores, of G's moving average (not in the paper): not measured yet.
"""

from ml_collections import ConfigDict

from experiments import dcgan_celeba


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg 'tiny': seconds on a laptop, with digits."""
  config = dcgan_celeba.get_config(arg)
  config.data.flip = True
  if arg != 'tiny':
    config.data.source = 'cifar10'
    config.data.split = 'train'
    config.data.crop = None
    config.data.resolution = 32
    config.total_images = 100 * 50_000
  return config
