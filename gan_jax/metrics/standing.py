"""Standing statistics: BatchNorm statistics of G for its evaluation.

Brock et al. 2019 (BigGAN), appendix B: instead of running averages of training,
which lag behind an average of the parameters, the means and variances are those
of many batches of samples of the evaluated parameters.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gan_jax import devices
from gan_jax.errors import UserError
from gan_jax.games.game import Game, Phase
from gan_jax.keys import Purpose, example_keys
from gan_jax.metrics.extractor import CheckStop
from gan_jax.pair import Variables

COLLECTION = 'batch_stats'


def make_standing_fn(
  game: Game, num_batches: int, batch_size: int
) -> Callable[..., Variables]:
  """Makes a function (variables of G, phase) -> variables with standing stats.

  Its optional third argument is a `CheckStop`.

  The mean and the variance of each BatchNorm are averaged over the batches.
  Latents are not truncated, and all classes are equally frequent.

  Args:
    game: The game that samples inputs and generates images.
    num_batches, batch_size: Number and size of the batches; a size is rounded
      up to a multiple of the number of devices.

  Raises:
    UserError: G's inputs are real images.
  """
  if game.reads:
    raise UserError(
      'config.evaluation.standing_batches needs a generator of latents: set it '
      'to None'
    )
  size = devices.round_up_batch_size(batch_size)

  @devices.jit_over_rows
  def batch_statistics(rows, gen_vars, phase):
    # Other purposes than the fakes' own: their latents are independent.
    keys = example_keys(jax.random.key(0), Purpose.STANDING, rows['example'])
    inputs = game.sample_inputs(keys, {}, phase)

    def updated(value):
      filled = jax.tree.map(
        lambda x: jnp.full_like(x, value), gen_vars[COLLECTION]
      )
      variables = {**gen_vars, COLLECTION: filled}
      try:
        return game.generate(variables, inputs, phase)[1][COLLECTION]
      except KeyError as error:  # such as the images of an encoder
        raise UserError(
          f'config.evaluation.standing_batches needs a generator of latents '
          f'alone, and this one needs {error}: set it to None'
        ) from error

    # An update is momentum * old + (1 - momentum) * new, for any momentum.
    zeros, ones = updated(0.0), updated(1.0)
    return jax.tree.map(lambda z, o: z / (1 - (o - z)), zeros, ones)

  def standing(
    gen_vars: Variables, phase: Phase, check_stop: CheckStop = lambda: None
  ) -> Variables:
    if COLLECTION not in gen_vars:
      raise UserError(
        'config.evaluation.standing_batches needs a generator with BatchNorm: '
        'set it to None'
      )
    total = None
    for first in range(0, num_batches * size, size):
      check_stop()
      rows = {'example': jnp.arange(first, first + size)}
      one = batch_statistics(rows, gen_vars, phase)
      total = one if total is None else jax.tree.map(jnp.add, total, one)
    mean = jax.tree.map(lambda x: x / num_batches, total)
    return {**gen_vars, COLLECTION: mean}

  return standing
