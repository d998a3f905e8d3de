"""25 Gaussians on a grid: does a GAN find all of them?

  python launch.py --config=experiments/toy_grid.py
  python launch.py --config=experiments/toy_grid.py:wgan_gp

The loss is non-saturating with R1 + R2, or WGAN-GP (with one critic update in
an iteration; both use Adam (0, 0.9)). G is deeper and wider than D, because its
mapping must change sharply between the modes. All other settings are those of
toy_ring.py. The scores of seeds 0 to 4 are in docs/results/toys.md.
"""

from ml_collections import ConfigDict

from experiments import toy_ring


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg 'wgan_gp'; 'tiny': seconds on a laptop."""
  if arg not in ('', 'tiny', 'wgan_gp'):
    raise ValueError(f"unknown argument {arg!r} (valid: 'tiny', 'wgan_gp')")
  config = toy_ring.get_config('tiny' if arg == 'tiny' else '')
  config.data.source = 'toy:grid'
  if arg == 'wgan_gp':
    config.game.loss.name = 'wasserstein'
    config.game.penalties.gradient_penalty.weight = 1.0
    config.game.penalties.r1.weight = config.game.penalties.r2.weight = 0.0
  if arg != 'tiny':
    config.model.gen.hidden = (256, 256, 256, 256)
    config.total_images = 256 * 12_000
    config.sample_every_images = config.total_images // 40
    config.evaluation.every_images = config.total_images // 20
    config.checkpoint_every_images = config.total_images // 4
  return config
