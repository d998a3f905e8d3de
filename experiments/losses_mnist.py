"""Losses and penalties on the 60,000 training digits of MNIST.

The MLPs of vanilla_mnist.py without dropout, and Adam 2e-4 (0.5, 0.9). Flags
choose the loss and the penalties:

  python launch.py --config=experiments/losses_mnist.py \\
    --config.game.loss.name=hinge --config.game.penalties.r1.weight=10

The command finds or downloads the digits as in dcgan_mnist.py. The sweep uses
smaller networks, with one hidden layer of 256 units; its results are in
docs/results/losses.md.
"""

from ml_collections import ConfigDict, config_dict

from experiments import vanilla_mnist
from experiments.base import tiny_sweeps


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg 'tiny': seconds on a laptop, with digits."""
  config = vanilla_mnist.get_config(arg)
  config.model.disc.dropout = 0.0
  adam = {'name': 'adam', 'learning_rate': 2e-4, 'b1': 0.5, 'b2': 0.9}
  config.optimizer = ConfigDict({'gen': dict(adam), 'disc': dict(adam)})
  config.game.loss = ConfigDict({'name': 'non_saturating'})
  config.game.clip = config_dict.placeholder(float)  # D's clipping; None: off
  config.game.penalties = ConfigDict(
    {
      'gradient_penalty': {'weight': 0.0, 'target': 1.0, 'one_sided': False},
      'dragan': {'weight': 0.0, 'target': 1.0, 'std': 0.5},
      'r1': {'weight': 0.0},
      'r2': {'weight': 0.0},
      'drift': {'weight': 0.0},
    }
  )
  if arg != 'tiny':
    config.steps_per_dispatch = 50
    config.log_every_steps = 500
    config.data.source = 'mnist'
    config.evaluation.num_samples = 10_000
  return config


def sweep(arg: str = '') -> dict:
  """Returns the grid of docs/results/losses.md: an hour on two cores."""
  penalty = 'game.penalties.{}.weight'.format
  sweeps = {
    'losses': {
      'space': {
        'penalty': {
          'none': {},
          'clip': {'game.clip': 0.01},
          'gradient_penalty': {penalty('gradient_penalty'): 10.0},
          'dragan': {penalty('dragan'): 10.0},
          'r1': {penalty('r1'): 10.0},
          'r1 + r2': {penalty('r1'): 10.0, penalty('r2'): 10.0},
          'one-sided': {
            penalty('gradient_penalty'): 10.0,
            'game.penalties.gradient_penalty.one_sided': True,
          },
          'r2': {penalty('r2'): 10.0},
          'drift': {penalty('drift'): 0.001},
        },
        'game.loss.name': [
          'minimax', 'non_saturating', 'least_squares', 'hinge',
          'wasserstein', 'relativistic',
        ],
        'seed': [0, 1, 2],
      },
      'fixed': {
        'model.gen.hidden': (256,),
        'model.disc.hidden': (256,),
        'total_images': 256_000,
        'ema_halflife_images': 20_000,
        'evaluation.every_images': 256_000,
        'evaluation.num_samples': 5_000,
        'sample_every_images': 256_000,
        'checkpoint_every_images': 256_000,
      },
    }
  }  # fmt: skip
  return tiny_sweeps(sweeps) if arg == 'tiny' else sweeps
