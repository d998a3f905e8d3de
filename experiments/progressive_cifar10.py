"""Progressive growing to 32x32 on CIFAR-10.

As Karras et al. 2018 have it: 128 feature maps at most, a gradient of 750 asked
for in WGAN-GP, 400,000 images a stage. As progressive_celebahq.py otherwise.

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
    config.growth = progressive_celebahq.growth(32, 400_000, 9_600_000, arg)
    config.schedule = progressive_celebahq.grow(32)
    config.model.gen.most_features = config.model.disc.most_features = 128
    config.game.penalties.gradient_penalty.target = 750.0
  return config
