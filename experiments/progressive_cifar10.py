"""Progressive growing to 32x32 on CIFAR-10.

The setting of Karras et al. 2018, appendix D: 128 feature maps at most, a
gradient of 750 asked for in WGAN-GP, 400,000 images a stage. As
progressive_celebahq.py otherwise.

  python launch.py --config=experiments/progressive_cifar10.py

downloads the images, or takes them from where they are, as dcgan_cifar10.py
says.

Time and score of the full run: not yet measured.
"""

from ml_collections import ConfigDict

from experiments import progressive_celebahq


def get_config(arg: str = '') -> ConfigDict:
  """The config; arg 'many': for 8 devices; 'tiny': 16x16 in seconds."""
  config = progressive_celebahq.get_config(arg)
  if arg != 'tiny':
    config.data.source = 'cifar10'
    config.data.split = 'train'
    config.data.resolution = 32
    config.growth.stable_images = config.growth.fade_images = 400_000
    settings = progressive_celebahq.SETTINGS[arg]
    config.schedule = progressive_celebahq.grow(32, settings)
    config.model.gen.most_features = config.model.disc.most_features = 128
    config.game.penalties.gradient_penalty.target = 750.0
  return config
