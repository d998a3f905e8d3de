"""Mode collapse by design, and published remedies.

The ring of 8 Gaussians, without regularization of D, whose learning rate is a
fifth of G's. G moves all points to the mode with the highest D(x), D learns
this, and G moves on to another mode, for more than a thousand iterations.

  python launch.py --config=experiments/toy_collapse.py
  python launch.py --config=experiments/toy_collapse.py:r1

Other remedies are :pack (D discriminates 4 points together: PacGAN), :stddev (D
gets the standard deviation of groups of 4 points), and :wgan_gp (with 5 updates
of the critic, and Adam (0, 0.9)). docs/results/toys.md lists the modes that
five seeds of each have found.
"""

from ml_collections import ConfigDict

from experiments import toy_ring

REMEDIES = ('pack', 'r1', 'stddev', 'wgan_gp')


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg: a remedy, or 'tiny': seconds on a laptop."""
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
    config.ema_halflife_images *= (
      config.disc_steps
    )  # the same number of iterations
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
