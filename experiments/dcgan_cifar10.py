"""DCGAN on CIFAR-10 at 32x32.

As dcgan_celeba.py, at half the resolution, mirrored at random.

  python launch.py --config=experiments/dcgan_cifar10.py

reads PNG or JPEG files from data/cifar10/train, one folder a class (CIFAR-10
itself is distributed as arrays: unpack it to files first); elsewhere:
  --config.data.source=folder:/path/to/cifar10/train
"""

from ml_collections import ConfigDict

from experiments import dcgan_celeba


def get_config(arg: str = '') -> ConfigDict:
  """The config; arg 'tiny': seconds on a laptop, on embedded digits."""
  config = dcgan_celeba.get_config(arg)
  config.data.flip = True
  if arg != 'tiny':
    config.data.source = 'folder:data/cifar10/train'
    config.data.resolution = 32
    config.total_images = 100 * 50_000
  return config
