"""Progressive growing to 128x128 on CelebA.

The setting in which Karras et al. 2018 compare their contributions (table 1):
a quarter of the feature maps, 10 million images, the 128x128 pixels in the
middle of each aligned face (there they are cut 12 pixels lower). As
progressive_celebahq.py otherwise.

  python launch.py --config=experiments/progressive_celeba.py

downloads the faces, or takes them from where they are, as dcgan_celeba.py says.

Time and score of the full run: not yet measured.
"""

from ml_collections import ConfigDict

from experiments import progressive_celebahq


def get_config(arg: str = '') -> ConfigDict:
  """The config; arg 'many': for 8 devices; 'tiny': 16x16 in seconds."""
  config = progressive_celebahq.get_config(arg)
  if arg != 'tiny':
    config.data.source = 'celeba'
    config.data.crop = 128
    config.data.resolution = 128
    config.growth = progressive_celebahq.growth(128, 600_000, 4_000_000, arg)
    config.schedule = progressive_celebahq.grow(128)
    config.model.gen.features = config.model.disc.features = 2048
  return config
