"""CycleGAN between two 2-D manifolds: plots show where points are mapped.

Two interlocking half circles (a) and a spiral (b), drawn on the device. The
losses are those of cyclegan_folder.py, with small fully connected networks.

  python launch.py --config=experiments/cyclegan_toy.py

`samples/` holds plots at regular intervals: a line joins each point to its
translation. metrics.jsonl has the mean cycle errors, gen/cycle_a and
gen/cycle_b, and the Wasserstein distance of each translation from its target.
"""

from ml_collections import ConfigDict

from experiments import cyclegan_folder


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg 'tiny': seconds on a laptop."""
  config = cyclegan_folder.get_config(arg)
  config.data.a = 'toy:moons'
  config.data.b = 'toy:swiss_roll'
  config.data.channels = 2  # coordinates
  config.data.resolution = 1
  config.data.load_resolution = None
  config.data.flip = False
  config.game.identity = 0.0
  config.game.pool_size = 512
  config.model.gen = ConfigDict(
    {
      'name': 'translation_mlp',
      'hidden': (128, 128, 128),
      'output': 'linear',
      'activation': 'leaky_relu',
      'negative_slope': 0.2,
    }
  )
  config.model.disc = ConfigDict(
    {
      'name': 'mlp',
      'hidden': (128, 128, 128),
      'dropout': 0.0,
      'stddev_group': 0,
      'activation': 'leaky_relu',
      'negative_slope': 0.2,
    }
  )
  if arg == 'tiny':
    config.model.gen.hidden = config.model.disc.hidden = (8, 8)
    config.game.pool_size = 6
    return config
  falling = ('linear', 1.0, 0.0)  # to the end of the run
  config.batch_size = 256
  config.steps_per_dispatch = 50
  config.total_images = 256 * 8_000
  config.schedule = (
    {'images': 256 * 4_000},
    {
      'gen_learning_rate_factor': falling,
      'disc_learning_rate_factor': falling,
    },
  )
  config.ema_halflife_images = 25_600
  config.sample_every_images = config.total_images // 40
  config.evaluation.every_images = config.total_images // 10
  config.evaluation.num_samples = 2_500
  config.checkpoint_every_images = config.total_images // 4
  return config
