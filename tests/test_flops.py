"""The FLOPs of an iteration, counted, against the arithmetic on paper."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tables import constant_table

from gan_jax.data.order import Stream
from gan_jax.games import image_game, losses
from gan_jax.games.latents import LATENTS
from gan_jax.models import dcgan, mlp
from gan_jax.modes.flops import flops
from gan_jax.training.feed import index_batch
from gan_jax.training.optimizers import make
from gan_jax.training.state import create
from gan_jax.training.step import train_dispatch

BATCH, LATENT = 8, 10


def round_flops(gen, disc, resolution, disc_steps, steps, own_batch=None):
  game = image_game(
    gen,
    disc,
    loss=losses.non_saturating(),
    latent=LATENTS['gaussian'],
    latent_dim=LATENT,
  )
  adam = {'name': 'adam', 'learning_rate': 1e-3}
  tx = make({'gen': adam, 'disc': adam})
  table = constant_table(
    BATCH * disc_steps * steps, steps, batch_size=BATCH,
    disc_steps=disc_steps, gen_batch_size=own_batch,
  )  # fmt: skip
  images = jnp.zeros((BATCH, resolution, resolution, 1))
  variables, _ = jax.eval_shape(
    lambda: game.init(jax.random.key(0), {'images': images})
  )
  state = jax.eval_shape(
    lambda v: create(jax.random.key(0), v, (), tx, 0), variables
  )
  fed = index_batch(Stream(0, 64), None, table, lambda n: slice(n), 0)
  read = lambda dataset, fed, key, step, shrink: {
    'example': fed['example'],
    'images': dataset[fed['index']],
  }
  data = jnp.zeros((64, resolution, resolution, 1))
  play = partial(train_dispatch, game, tx, read, None)
  return flops(play, state, data, fed, table.dispatch(0), ())


def on_paper(gen, disc, disc_steps, own_batch):
  """Each network's layers' multiplications, first to last, forward.

  Backward a layer takes as many for its weights, and as many for its input.
  G's first layer needs no gradient for z; nor D's for the images when D moves;
  nor any layer of D for its weights when G does.
  """
  forward = lambda layers: sum(layers)
  weights, inputs = forward, lambda layers: sum(layers[1:])
  disc_move = 2 * (forward(disc) + weights(disc) + inputs(disc))
  gen_move = 2 * forward(disc)  # and back through all of D, to the fakes
  gen_move += weights(gen) + inputs(gen)
  plays = disc_steps * forward(gen)  # the last serves G too
  own = (own_batch or BATCH) / BATCH
  if own_batch:
    plays += own * forward(gen)
  return 2 * BATCH * (disc_steps * disc_move + own * gen_move + plays)


@pytest.mark.parametrize('disc_steps, steps', [(1, 1), (1, 3), (2, 2)])
@pytest.mark.parametrize('own_batch', [None, 16])
def test_no_work_is_done_twice(disc_steps, steps, own_batch):
  """By an MLP and by DCGAN, 16x16, four features before the last doubling."""
  gen = mlp.Generator(16, 1, hidden=(20, 30))
  disc = mlp.Discriminator(hidden=(25,))
  counted = round_flops(gen, disc, 16, disc_steps, steps, own_batch)
  paper = on_paper(
    [LATENT * 20, 20 * 30, 30 * 256], [256 * 25, 25], disc_steps, own_batch
  )
  assert counted == steps * paper

  gen, disc = dcgan.Generator(16, 1, features=4), dcgan.Discriminator(16, 4)
  counted = round_flops(gen, disc, 16, disc_steps, steps, own_batch)
  k = 4 * 4
  paper = on_paper(
    [LATENT * k * 8, k * 8 * 4 * 4 * 4, k * 4 * 1 * 8 * 8],
    [k * 1 * 4 * 8 * 8, k * 4 * 8 * 4 * 4, k * 8],
    disc_steps,
    own_batch,
  )
  assert counted == steps * paper


def test_counts_by_hand():
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
