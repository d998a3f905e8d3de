"""8 Gaussians on a circle: a game that one can watch.

Points in the plane, drawn on the device without a data set. Two small networks
with R1 + R2 (Mescheder et al. 2018).

  python launch.py --config=experiments/toy_ring.py

The run takes one or two minutes on two CPU cores. `samples/` holds a plot of
the game at regular intervals, and `training.gif` animates them: the points, D's
output, the gradient of D at the fakes, and G's outputs along a grid of latents.
metrics.jsonl has the modes found and the share of samples within 3 standard
deviations of a mode, Jensen-Shannon and KL divergences on a grid, and the exact
Wasserstein distance of 1,000 samples.
"""

from ml_collections import ConfigDict, config_dict

from experiments import vanilla_mnist


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg 'tiny': seconds on a laptop."""
  config = vanilla_mnist.get_config(arg)
  config.data.source = 'toy:ring'
  config.data.resolution = 1
  config.data.channels = 2  # coordinates
  config.game.latent_dim = 2
  config.game.loss = ConfigDict({'name': 'non_saturating'})
  config.game.clip = config_dict.placeholder(float)  # D's clipping; None: off
  config.game.pack = 1
  config.game.penalties = ConfigDict(
    {
      'gradient_penalty': {'weight': 0.0, 'target': 1.0, 'one_sided': False},
      'r1': {'weight': 0.1},
      'r2': {'weight': 0.1},
    }
  )
  config.model.gen.output = 'linear'
  config.model.disc.dropout = 0.0
  config.model.disc.stddev_group = 0
  adam = {'name': 'adam', 'learning_rate': 1e-3, 'b1': 0.0, 'b2': 0.9}
  config.optimizer = ConfigDict({'gen': dict(adam), 'disc': dict(adam)})
  config.evaluation.metrics = ()  # (): all metrics of the points
  config.evaluation.num_samples = 2_500
  config.evaluation.features = None
  if arg == 'tiny':
    return config
  config.model.gen.hidden = config.model.disc.hidden = (128, 128, 128)
  config.batch_size = 256
  config.steps_per_dispatch = 50
  config.total_images = 256 * 8_000
  falling = ('linear', 1.0, 0.0)  # to the end of the run
  config.schedule = (
    {
      'gen_learning_rate_factor': falling,
      'disc_learning_rate_factor': falling,
    },
  )
  config.ema_halflife_images = 25_600
  config.log_every_steps = 100
  config.sample_every_images = config.total_images // 40
  config.evaluation.every_images = config.total_images // 20
  config.checkpoint_every_images = config.total_images // 4
  return config


def sweep() -> dict:
  """Returns a search of R1's and R2's weights and G's momentum; minutes."""
  return {
    'penalties': {
      'score': 'wasserstein',
      'trials': 12,
      'space': {
        'game.penalties.r1.weight': {'low': 0.01, 'high': 10.0, 'log': True},
        'game.penalties.r2.weight': {'low': 0.01, 'high': 10.0, 'log': True},
        'optimizer.gen.b1': [0.0, 0.5],
      },
      'fixed': {'total_images': 256 * 2_000},
      'pruner': {'name': 'median', 'warmup_images': 256 * 800},
    }
  }
