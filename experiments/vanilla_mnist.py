"""The vanilla GAN on 5,000 MNIST digits; no download is needed.

Goodfellow et al. 2014, "Generative adversarial nets": two multilayer
perceptrons, dropout in D, the non-saturating loss. (Adam is younger than the
paper. No momentum and a dropout of a half scored best among a dozen settings.)

  python launch.py --config=experiments/vanilla_mnist.py

The run takes 6 minutes on two cores of an AMD EPYC, evaluations included. Of
1,000 samples, an independent classifier is more than 90% sure of 77% (of
genuine digits: 94%), and each digit has a share of at least 8%.

All of MNIST:
  --config.data.source=mnist
"""

from ml_collections import ConfigDict

from experiments.base import base_config, tiny_sweeps


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg 'tiny': seconds on a laptop."""
  if arg not in ('', 'tiny'):
    raise ValueError(f"unknown argument {arg!r} (valid: 'tiny')")
  config = base_config()
  config.batch_size = 64
  config.steps_per_dispatch = 10
  config.total_images = 1_200_000
  config.ema_halflife_images = 50_000

  config.log_every_steps = 100
  config.sample_every_images = 100_000
  config.checkpoint_every_images = 200_000

  config.evaluation.every_images = 200_000
  config.evaluation.num_samples = 5_000
  config.evaluation.metrics = ('fid', 'classes', 'precision_recall')
  config.evaluation.features = 'digits'

  config.data.source = 'digits'
  config.data.split = 'train'
  config.data.resolution = 28
  config.data.channels = 1
  config.data.max_device_bytes = 2**31

  config.game.latent_dim = 64

  config.model.gen = ConfigDict(
    {
      'name': 'mlp',
      'hidden': (256, 512, 1024),
      'activation': 'relu',
      'negative_slope': 0.2,
    }
  )
  config.model.disc = ConfigDict(
    {
      'name': 'mlp',
      'hidden': (1024, 512, 256),
      'dropout': 0.5,
      'activation': 'leaky_relu',
      'negative_slope': 0.2,
    }
  )

  adam = {'name': 'adam', 'learning_rate': 2e-4, 'b1': 0.0, 'b2': 0.999}
  config.optimizer = ConfigDict({'gen': dict(adam), 'disc': dict(adam)})

  if arg == 'tiny':
    config.evaluation.every_images = None
    config.model.gen.hidden = (32,)
    config.model.disc.hidden = (32,)
    config.batch_size = 16
    config.steps_per_dispatch = 4
    config.total_images = 16 * 24
    config.log_every_steps = 4
    config.sample_every_images = 16 * 12
    config.checkpoint_every_images = 16 * 8
  return config


def sweep(arg: str = '') -> dict:
  """Returns a search of learning rates and dropout; minutes on two cores."""
  rates = {'low': 5e-5, 'high': 2e-3, 'log': True}
  sweeps = {
    'rates': {
      'trials': 12,
      'space': {
        'optimizer.gen.learning_rate': rates,
        'optimizer.disc.learning_rate': rates,
        'model.disc.dropout': [0.0, 0.25, 0.5],
      },
      'fixed': {
        'total_images': 60_000,
        'ema_halflife_images': 5_000,
        'evaluation.every_images': 10_000,
        'evaluation.num_samples': 1_000,
      },
      'cost': '3.5 minutes on two cores of an AMD EPYC, two trials at a time',
      'pruner': {
        'name': 'median',
        'startup_trials': 4,
        'warmup_images': 20_000,
      },
    }
  }
  return tiny_sweeps(sweeps) if arg == 'tiny' else sweeps
