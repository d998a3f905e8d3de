"""Population-based training of a GAN on 5,000 MNIST digits; no download.

Jaderberg et al. 2017, "Population based training of neural networks": the
learning rates of both players and the weight of R1 change during training. The
networks are the MLPs of vanilla_mnist.py with one hidden layer of 256 units:

  python launch.py --config=experiments/population_digits.py --mode=sweep \\
    --sweep=population --parallel_trials=2

The sweep `random` trains the same settings to the end without changing them,
with the same budget. docs/results/sweeps.md compares both.
"""

from ml_collections import ConfigDict

from experiments import vanilla_mnist
from experiments.base import tiny_sweeps


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg 'tiny': seconds on a laptop."""
  config = vanilla_mnist.get_config(arg)
  config.model.disc.dropout = 0.0
  config.game.penalties = ConfigDict({'r1': {'weight': 0.1}})
  if arg != 'tiny':
    config.model.gen.hidden = config.model.disc.hidden = (256,)
    config.total_images = 40_000
    config.ema_halflife_images = 2_000
    config.sample_every_images = 10_000
    config.checkpoint_every_images = 10_000
    config.evaluation.every_images = 10_000
    config.evaluation.num_samples = 1_000
    config.evaluation.metrics = ('fid',)
  return config


def sweep(arg: str = '') -> dict:
  """Returns a population, and a random search of the same settings."""
  rates = {'low': 2e-5, 'high': 5e-3, 'log': True}
  space = {
    'optimizer.gen.learning_rate': rates,
    'optimizer.disc.learning_rate': rates,
    'game.penalties.r1.weight': {'low': 1e-3, 'high': 10.0, 'log': True},
  }
  interval = 128 if arg == 'tiny' else 10_000
  sweeps = {
    'population': {
      'space': space,
      'population': {'size': 4, 'interval_images': interval},
    },
    'random': {'space': space, 'sampler': 'random', 'trials': 4},
  }
  return tiny_sweeps(sweeps) if arg == 'tiny' else sweeps
