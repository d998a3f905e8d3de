"""2x2 pictures of the people of Slanted Land: the smallest image GAN.

Everybody there is tilted: bright on the diagonal, dark elsewhere. Each network
has one hidden layer of 32 units; the run takes half a minute on a CPU.

  python launch.py --config=experiments/toy_slanted_land.py

The score is the exact Wasserstein distance of 1,000 pictures, taken as points
with four coordinates.
"""

from ml_collections import ConfigDict

from experiments import vanilla_mnist


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg 'tiny': seconds on a laptop."""
  config = vanilla_mnist.get_config(arg)
  config.data.source = 'slanted_land'
  config.data.resolution = 2
  config.game.latent_dim = 2
  config.model.disc.dropout = 0.0
  adam = {'name': 'adam', 'learning_rate': 2e-3, 'b1': 0.5, 'b2': 0.999}
  config.optimizer = ConfigDict({'gen': dict(adam), 'disc': dict(adam)})
  config.evaluation.metrics = ('wasserstein',)
  config.evaluation.features = None
  if arg == 'tiny':
    return config
  config.model.gen.hidden = config.model.disc.hidden = (32,)
  config.ema_halflife_images = 10_000
  config.steps_per_dispatch = 100
  config.total_images = 64 * 1_500
  config.log_every_steps = 500
  config.sample_every_images = config.total_images // 10
  config.evaluation.every_images = config.total_images // 5
  config.checkpoint_every_images = config.total_images
  return config
