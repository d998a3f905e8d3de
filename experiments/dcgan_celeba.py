"""DCGAN on CelebA at 64x64.

Radford et al. 2016, "Unsupervised representation learning with deep
convolutional generative adversarial networks", with the settings of its
reference implementations: 100 latents, 4x4 convolutions, weights N(0, 0.02),
BatchNorm gains N(1, 0.02), Adam 2e-4 (0.5, 0.999), batches of 128, 25 epochs.

  python launch.py --config=experiments/dcgan_celeba.py

The command downloads the aligned and cropped faces, or reads them from
  --config.data.files=/path/to/folder
The folder holds img_align_celeba.zip, or its unpacked images, and
list_attr_celeba.txt (https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html), or
celeb_a as prepared by TFDS. The images are prepared once: cropped to the
central 178x178 (other code crops 160, which changes the scores) and resized to
64x64. `--mode=preview` shows them.

Samples and scores use a moving average of G, which the paper does not have
(`ema_halflife_images`). Time and score of the full run: not measured yet.
"""

from ml_collections import ConfigDict

from experiments.base import base_config, tiny_sweeps


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg 'tiny': seconds on a laptop, with digits."""
  if arg not in ('', 'tiny'):
    raise ValueError(f"unknown argument {arg!r} (valid: 'tiny')")
  config = base_config()
  config.batch_size = 128
  config.total_images = 25 * 202_599
  config.ema_halflife_images = 10_000

  config.log_every_steps = 50
  config.sample_every_images = 50_000
  config.checkpoint_every_images = 200_000
  config.evaluation.every_images = 500_000

  config.data.source = 'celeba'
  config.data.crop = 178  # in the centre
  config.data.resolution = 64

  config.game.latent_dim = 100

  config.model.gen = ConfigDict(
    {
      'name': 'dcgan',
      'features': 64,
      'activation': 'relu',
      'negative_slope': 0.2,
    }
  )
  config.model.disc = ConfigDict(
    {
      'name': 'dcgan',
      'features': 64,
      'normalized': True,
      'activation': 'leaky_relu',
      'negative_slope': 0.2,
    }
  )

  adam = {'name': 'adam', 'learning_rate': 2e-4, 'b1': 0.5, 'b2': 0.999}
  config.optimizer = ConfigDict({'gen': dict(adam), 'disc': dict(adam)})

  if arg == 'tiny':
    config.evaluation.every_images = None
    config.data.source = 'digits'
    config.data.crop = None
    config.data.resolution = 16
    config.model.gen.features = 8
    config.model.disc.features = 8
    config.batch_size = 16
    config.steps_per_dispatch = 1
    config.total_images = 16 * 12
    config.log_every_steps = 2
    config.sample_every_images = 16 * 6
    config.checkpoint_every_images = 16 * 4
  return config


def sweep(arg: str = '') -> dict:
  """Returns a search of learning rates and momentum over five epochs.

  Successive halving ends most of the 32 trials early. Each running trial needs
  a GPU or TPU. Not run yet.
  """
  rates = {'low': 5e-5, 'high': 1e-3, 'log': True}
  both = lambda b1: {'optimizer.gen.b1': b1, 'optimizer.disc.b1': b1}
  sweeps = {
    'rates': {
      'trials': 32,
      'score': 'fid',
      'space': {
        'optimizer.gen.learning_rate': rates,
        'optimizer.disc.learning_rate': rates,
        'momentum': {'none': both(0.0), 'some': both(0.5), 'much': both(0.9)},
      },
      'fixed': {
        'total_images': 5 * 202_599,
        'evaluation.every_images': 100_000,
        'evaluation.metrics': ('fid',),
      },
      'pruner': {'name': 'halving', 'min_images': 100_000, 'factor': 3},
      'keep_pruned': False,
    }
  }
  return tiny_sweeps(sweeps) if arg == 'tiny' else sweeps
