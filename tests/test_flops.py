"""Compares the counted FLOPs of an iteration with those computed by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from schedules import one_segment_schedule

from gan_jax.data.order import Stream
from gan_jax.games import losses
from gan_jax.games.image import image_game
from gan_jax.games.latents import LATENTS
from gan_jax.models import dcgan, mlp
from gan_jax.modes.flops import flops
from gan_jax.training.dispatch import train_dispatch
from gan_jax.training.feed import index_batch
from gan_jax.training.optimizers import make
from gan_jax.training.state import create

BATCH, LATENT = 8, 10


def iteration_flops(
  gen, disc, resolution, disc_steps, steps, gen_batch_size=None
):
  game = image_game(
    gen,
    disc,
    loss=losses.non_saturating(),
    latent=LATENTS['gaussian'],
    latent_dim=LATENT,
  )
  adam = {'name': 'adam', 'learning_rate': 1e-3}
  tx = make({'gen': adam, 'disc': adam})
  schedule = one_segment_schedule(
    BATCH * disc_steps * steps, steps, batch_size=BATCH,
    disc_steps=disc_steps, gen_batch_size=gen_batch_size,
  )  # fmt: skip
  images = jnp.zeros((BATCH, resolution, resolution, 1))
  variables, _ = jax.eval_shape(
    lambda: game.init(jax.random.key(0), {'images': images})
  )
  state = jax.eval_shape(
    lambda v: create(jax.random.key(0), v, (), tx, 0), variables
  )
  batch = index_batch(Stream(0, 64), None, schedule, lambda n: slice(n), 0)
  read = lambda dataset, batch, key, step, shrink: {
    'example': batch['example'],
    'images': dataset[batch['index']],
  }
  data = jnp.zeros((64, resolution, resolution, 1))
  dispatch = partial(train_dispatch, game, tx, read, None)
  return flops(dispatch, state, data, batch, schedule.dispatch(0), ())


def flops_by_hand(gen, disc, disc_steps, gen_batch_size):
  """Takes each network's forward multiplications, one number for each layer.

  The backward pass of a layer takes as many for its weights, and as many for
  its input. Three gradients are not needed: of z; of the images in D's update;
  of D's weights in G's update.
  """
  forward = lambda layers: sum(layers)
  weights, inputs = forward, lambda layers: sum(layers[1:])
  disc_update = 2 * (forward(disc) + weights(disc) + inputs(disc))
  gen_update = 2 * forward(disc)  # forward and back to the fakes
  gen_update += weights(gen) + inputs(gen)
  fakes = disc_steps * forward(gen)  # G's update reuses the last fakes
  ratio = (gen_batch_size or BATCH) / BATCH
  if gen_batch_size:
    fakes += ratio * forward(gen)
  return 2 * BATCH * (disc_steps * disc_update + ratio * gen_update + fakes)


@pytest.mark.parametrize('disc_steps, steps', [(1, 1), (1, 3), (2, 2)])
@pytest.mark.parametrize('gen_batch_size', [None, 16])
def test_iteration_flops_equal_those_by_hand(disc_steps, steps, gen_batch_size):
  """For MLPs, and for DCGAN at 16x16 with four features."""
  gen = mlp.Generator(16, 1, hidden=(20, 30))
  disc = mlp.Discriminator(hidden=(25,))
  counted = iteration_flops(gen, disc, 16, disc_steps, steps, gen_batch_size)
  expected = flops_by_hand(
    [LATENT * 20, 20 * 30, 30 * 256], [256 * 25, 25], disc_steps, gen_batch_size
  )
  assert counted == steps * expected

  gen, disc = dcgan.Generator(16, 1, features=4), dcgan.Discriminator(16, 4)
  counted = iteration_flops(gen, disc, 16, disc_steps, steps, gen_batch_size)
  k = 4 * 4
  expected = flops_by_hand(
    [LATENT * k * 8, k * 8 * 4 * 4 * 4, k * 4 * 1 * 8 * 8],
    [k * 1 * 4 * 8 * 8, k * 4 * 8 * 4 * 4, k * 8],
    disc_steps,
    gen_batch_size,
  )
  assert counted == steps * expected


def test_flops_of_operations_by_hand():
  a, b = jnp.zeros((2, 3)), jnp.zeros((3, 5))
  assert flops(jnp.matmul, a, b) == 2 * 2 * 3 * 5
  assert flops(lambda a, b: (a @ b, a @ b)[:1], a, b) == 2 * 2 * 3 * 5
  thrice = lambda a: jax.lax.scan(lambda x, _: (x @ x, None), a, None, 3)[0]
  assert flops(thrice, jnp.zeros((4, 4))) == 3 * 2 * 4**3
  branches = lambda i, a, b: jax.lax.cond(
    i, lambda: a @ b, lambda: jnp.zeros((2, 5))
  )
  assert flops(branches, True, a, b) == 2 * 2 * 3 * 5
  image, kernel = np.zeros((2, 8, 8, 3)), np.zeros((4, 4, 3, 5))
  halve = lambda x, w: jax.lax.conv_general_dilated(
    x, w, (2, 2), ((1, 1), (1, 1)), dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )
  once = 2 * (2 * 4 * 4 * 5) * (4 * 4 * 3)
  assert flops(halve, image, kernel) == once
  both = jax.grad(lambda x, w: jnp.sum(halve(x, w) ** 2), (0, 1))
  assert flops(both, image, kernel) == 3 * once
