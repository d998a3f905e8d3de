"""Mode collapse, by design, and what is said to cure it.

The ring of 8 Gaussians, with nothing to hold D, which learns five times more
slowly than G: G puts all its points where D believes most in them, D learns
that, and G moves on, from mode to mode, for a thousand iterations and more.

  python launch.py --config=experiments/toy_collapse.py
  python launch.py --config=experiments/toy_collapse.py:r1

Or :pack (D judges 4 points as one: PacGAN), :stddev (D is told how various 4
points are), :wgan_gp (with its 5 steps of the critic, and Adam (0, 0.9)). The
modes that five seeds of each found are in docs/results/toys.md.
"""

from ml_collections import ConfigDict

from experiments import toy_ring

REMEDIES = ('pack', 'r1', 'stddev', 'wgan_gp')


def get_config(arg: str = '') -> ConfigDict:
  """The config; arg: a remedy; or 'tiny': seconds on a laptop."""
  if arg not in ('', 'tiny', *REMEDIES):
    raise ValueError(f'unknown argument {arg!r} (valid: tiny, {REMEDIES})')
  config = toy_ring.get_config('tiny' if arg == 'tiny' else '')
  config.game.penalties.r1.weight = 1.0 if arg == 'r1' else 0.0
  config.game.penalties.r2.weight = 0.0
  config.game.pack = 4 if arg == 'pack' else 1
  config.model.disc.stddev_group = 4 if arg == 'stddev' else 0
  adam = {'name': 'adam', 'learning_rate': 1e-3, 'b1': 0.5, 'b2': 0.999}
  if arg == 'wgan_gp':
    config.game.loss.name = 'wasserstein'
    config.game.penalties.gradient_penalty.weight = 0.1
    config.disc_steps = 5
    config.gen_batch_size = 256
    config.ema_halflife_images *= config.disc_steps  # as many iterations
    adam |= {'b1': 0.0, 'b2': 0.9}
  config.optimizer = ConfigDict({'gen': dict(adam), 'disc': dict(adam)})
  config.optimizer.disc.learning_rate = 2e-4
  if arg != 'tiny':
    config.total_images = 256 * 3_000 * config.disc_steps
    config.schedule = ({},)
    config.sample_every_images = config.total_images // 40
    config.evaluation.every_images = config.total_images // 20
    config.checkpoint_every_images = config.total_images
  return config
