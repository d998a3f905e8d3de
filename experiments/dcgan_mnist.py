"""DCGAN on the 60,000 training digits of MNIST, at 32x32.

As dcgan_celeba.py, but grey, at half the resolution.

  python launch.py --config=experiments/dcgan_mnist.py

downloads them, or takes them from where the four official .gz files are:
  --config.data.files=/path/to/folder
Fashion-MNIST: --config.data.source=fashion_mnist
"""

from ml_collections import ConfigDict

from experiments import dcgan_celeba


def get_config(arg: str = '') -> ConfigDict:
  """The config; arg 'tiny': seconds on a laptop, on embedded digits."""
  config = dcgan_celeba.get_config(arg)
  config.data.channels = 1
  config.evaluation.metrics = ('fid', 'classes', 'precision_recall')
  config.evaluation.features = 'digits'
  config.game.penalties = ConfigDict(
    {
      'gradient_penalty': {'weight': 0.0, 'every': 1},  # 0: not in play
      'r1': {'weight': 0.0, 'every': 1},
    }
  )
  if arg != 'tiny':
    config.data.source = 'mnist'
    config.data.split = 'train'
    config.data.crop = None
    config.data.resolution = 32
    config.evaluation.every_images = 150_000
    config.evaluation.metrics += ('memorisation',)
    config.evaluation.held_out = 'test'
    config.total_images = 25 * 60_000
  return config


def sweep() -> dict:
  """Every loss with every penalty, three times, at a quarter of the width.

  60 trials of 300,000 images: for a GPU or TPU. Not yet run.
  """
  # BatchNorm mixes the images of a batch, of each of which the gradient is.
  alone = {'model.disc.normalized': False}
  return {
    'losses': {
      'space': {
        'game.loss.name': [
          'non_saturating', 'least_squares', 'hinge', 'wasserstein',
          'relativistic',
        ],
        'penalty': {
          'none': {},
          'gradient_penalty': {
            'game.penalties.gradient_penalty.weight': 10.0, **alone,
          },
          'r1': {'game.penalties.r1.weight': [1.0, 10.0], **alone},
        },
        'seed': [0, 1, 2],
      },
      'fixed': {
        'total_images': 300_000,
        'evaluation.every_images': 100_000,
        'evaluation.metrics': ('fid', 'classes'),
        'model.gen.features': 16,
        'model.disc.features': 16,
      },
    }
  }  # fmt: skip
