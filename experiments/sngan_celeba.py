"""SNGAN on CelebA at 64x64.

sngan_cifar10.py with the residual networks for 64x64: G from 1024 to 64
channels, D from 64 to 1024; 5 updates of D for one of G, batches of 64, 100,000
updates of G (mimicry: FID 5.71, with the same crop of 178).

  python launch.py --config=experiments/sngan_celeba.py

The command finds or downloads the faces as in dcgan_celeba.py. Score, of G's
moving average (not in the paper): not measured yet.
"""

from ml_collections import ConfigDict

from experiments import sngan_cifar10


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg 'tiny': seconds on a laptop, with digits."""
  config = sngan_cifar10.get_config(arg)
  if arg == 'tiny':
    return config
  config.data.source = 'celeba'
  config.data.split = 'all'
  config.data.crop = 178
  config.data.resolution = 64
  config.gen_batch_size = 64
  config.model.gen.features = (1024, 512, 256, 128, 64)
  config.model.disc.features = (64, 128, 256, 512, 1024)
  config.model.disc.num_downsamples = 5
  config.total_images = 100_000 * config.batch_size * config.disc_steps
  return config
