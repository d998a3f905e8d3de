"""A schedule of one segment, for tests of functions that need a schedule."""

from gan_jax.pair import Pair
from gan_jax.training.schedule import place_segments


def one_segment_schedule(total_images, steps_per_dispatch, **segment):
  """Returns batches of 4 and two D updates, or as `segment` says."""
  defaults = {
    'batch_size': 4,
    'gen_batch_size': None,
    'disc_steps': 2,
  }
  return place_segments(
    ({},),
    defaults={**defaults, **segment},
    learning_rate=Pair(0.1, 0.1),
    total_images=total_images,
    steps_per_dispatch=steps_per_dispatch,
    ema_halflife_images=10,
    ema_rampup=None,
  )
