"""A schedule of one span, for tests of what takes its batches from one."""

from gan_jax.schedule import tabulate


def constant_table(total_images, rounds_per_dispatch, **span):
  """Batches of 4, two D steps a round, G on D's fakes: or as `span` says."""
  defaults = {
    'batch_size': 4,
    'gen_batch_size': None,
    'disc_steps': 2,
    'gen_learning_rate': 0.1,
    'disc_learning_rate': 0.1,
  }
  return tabulate(
    ({},),
    defaults={**defaults, **span},
    total_images=total_images,
    rounds_per_dispatch=rounds_per_dispatch,
    ema_halflife_images=10,
    ema_rampup=None,
  )
