"""A schedule of one span, for tests of what takes its batches from one."""

from gan_jax.pair import Pair
from gan_jax.training.schedule import tabulate


def constant_table(total_images, rounds_per_dispatch, **span):
  """Batches of 4, two D steps a round, G on D's fakes: or as `span` says."""
  defaults = {
    'batch_size': 4,
    'gen_batch_size': None,
    'disc_steps': 2,
  }
  return tabulate(
    ({},),
    defaults={**defaults, **span},
    learning_rate=Pair(0.1, 0.1),
    total_images=total_images,
    rounds_per_dispatch=rounds_per_dispatch,
    ema_halflife_images=10,
    ema_rampup=None,
  )
