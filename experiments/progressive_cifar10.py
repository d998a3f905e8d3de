"""Progressive growing on CIFAR-10 to 32x32.

The settings of Karras et al. 2018: at most 128 feature maps, a target gradient
of 750 in WGAN-GP, 400,000 images in each stage. All other settings are those of
progressive_celebahq.py. (The authors' code updates both players at the same
time here, on the same fakes.)

  python launch.py --config=experiments/progressive_cifar10.py

The command finds or downloads the images as in dcgan_cifar10.py.

Time and score of the full run: not measured yet.
"""

from ml_collections import ConfigDict

from experiments import progressive_celebahq
from experiments.base import tiny_sweeps


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg 'many': for 8 devices; 'tiny': to 16x16."""
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


def sweep(arg: str = '') -> dict:
  """Returns a grid of fade-in lengths with two seeds.

  Shorter fade-ins leave more images for the last stage: every trial sees 2.4
  million images. Each running trial needs a GPU or TPU. Not run yet.
  """
  stable, total = 200_000, 2_400_000
  lengths = 25_000, 50_000, 100_000, 200_000, 400_000
  levels = 3  # resolutions above 4x4
  if arg == 'tiny':
    stable, total, lengths, levels = 64, 448, (32, 64), 2

  def fading(images: int) -> dict:
    rest = total - levels * (stable + images)
    return {'growth.fade_images': images, 'growth.last_images': rest}

  sweeps = {
    'fading': {
      'score': 'swd',
      'space': {
        'fading': {f'{images:,}': fading(images) for images in lengths},
        'seed': [0, 1],
      },
      'fixed': {
        'growth.stable_images': stable,
        'evaluation.every_images': 300_000,
      },
    }
  }
  return tiny_sweeps(sweeps) if arg == 'tiny' else sweeps
