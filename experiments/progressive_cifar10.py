"""Progressive growing to 32x32 on CIFAR-10.

As Karras et al. 2018 have it: 128 feature maps at most, a gradient of 750 asked
for in WGAN-GP, 400,000 images a stage. As progressive_celebahq.py otherwise.
(Their code updates both players at once here, on the same fakes.)

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


def sweep() -> dict:
  """How long a level fades in, twice: a GPU or TPU for each trial that runs.

  What is not faded is trained at the end: every trial sees 2.4 million images.
  Not yet run.
  """
  stable, total = 200_000, 2_400_000
  levels = 3  # above 4x4

  def fading(images: int) -> dict:
    rest = total - levels * (stable + images)
    return {'growth.fade_images': images, 'growth.last_images': rest}

  lengths = 25_000, 50_000, 100_000, 200_000, 400_000
  return {
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
