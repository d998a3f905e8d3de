"""Mode collapse, by design, and what is said to cure it.

The ring of 8 Gaussians with Adam as it is used everywhere else, with momentum
(b1 = 0.9), and nothing to hold D: G chases it from mode to mode.

  python launch.py --config=experiments/toy_collapse.py
  python launch.py --config=experiments/toy_collapse.py:r1

Or :pack (D judges 4 points as one: PacGAN), :stddev (D is told how various 4
points are), :wgan_gp (with b1 = 0, as it is published). The README has a table
of the modes that five seeds of each found.
"""

from ml_collections import ConfigDict

from experiments import toy_ring

REMEDIES = ('pack', 'r1', 'stddev', 'wgan_gp')


def get_config(arg: str = '') -> ConfigDict:
  """The config; arg: a remedy; or 'tiny': seconds on a laptop."""
  config = toy_ring.get_config('' if arg in REMEDIES else arg)
  penalties = config.game.penalties
  penalties.r1.weight = 0.1 if arg == 'r1' else 0.0
  penalties.r2.weight = 0.0
  config.optimizer.gen.b1 = config.optimizer.disc.b1 = 0.9
  config.optimizer.gen.b2 = config.optimizer.disc.b2 = 0.999
  if arg == 'pack':
    config.game.pack = 4
  if arg == 'stddev':
    config.model.disc.stddev_group = 4
  if arg == 'wgan_gp':
    config.game.loss.name = 'wasserstein'
    penalties.gradient_penalty.weight = 0.1
    config.optimizer.gen.b1 = config.optimizer.disc.b1 = 0.0
    config.optimizer.gen.b2 = config.optimizer.disc.b2 = 0.9
  if arg != 'tiny':
    config.total_images = 256 * 4_000
    config.schedule = ({},)
    config.sample_every_images = config.total_images // 40
    config.evaluation.every_images = config.total_images // 20
    config.checkpoint_every_images = config.total_images
  return config
