"""Progressive growing on CelebA to 128x128.

The setting in which Karras et al. 2018 compare their contributions (table 1): a
quarter of the feature maps, 10 million images, and the central 128x128 pixels
of each aligned face (the paper crops 12 pixels lower). All other settings are
those of progressive_celebahq.py.

  python launch.py --config=experiments/progressive_celeba.py

The command finds or downloads the faces as in dcgan_celeba.py.

Time and score of the full run: not measured yet.
"""

from ml_collections import ConfigDict

from experiments import progressive_celebahq


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg 'many': for 8 devices; 'tiny': to 16x16."""
  config = progressive_celebahq.get_config(arg)
  if arg != 'tiny':
    config.data.source = 'celeba'
    config.data.crop = 128
    config.data.resolution = 128
    config.growth = progressive_celebahq.growth(128, 600_000, 4_000_000, arg)
    config.schedule = progressive_celebahq.grow(128)
    config.model.gen.features = config.model.disc.features = 2048
  return config
