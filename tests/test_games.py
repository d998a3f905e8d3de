"""Tests of the image game, on networks with few parameters."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gan_jax import devices
from gan_jax.errors import UserError
from gan_jax.games import losses
from gan_jax.games.game import main_output
from gan_jax.games.image import image_game
from gan_jax.games.latents import LATENTS
from gan_jax.models import progressive
from gan_jax.pair import Pair
from gan_jax.training import state
from gan_jax.training.schedule import place_segments
from gan_jax.training.step import train_step

N = 4
REAL = np.array([1.0, 2.0, 3.0, 6.0], np.float32)  # mean 3, variance 3.5
NOTHING = Pair(optax.set_to_zero(), optax.set_to_zero())


class Generator(nn.Module):
  """Generates one pixel: the BatchNorm of a single latent."""

  @nn.compact
  def __call__(self, z, keys, train):
    norm = nn.BatchNorm(not train, momentum=0.9, epsilon=0.0)
    return norm(z)[:, None, None, :]


class Discriminator(nn.Module):
  """Returns the BatchNorm of the pixel as the logit."""

  @nn.compact
  def __call__(self, images, keys, train):
    norm = nn.BatchNorm(not train, momentum=0.9, epsilon=0.0)
    return norm(images.reshape(-1, 1))[:, 0]


@pytest.fixture(scope='module')
def trained():
  """The game, and its states before and after one iteration with learning rate
  0.
  """
  game = image_game(
    Generator(),
    Discriminator(),
    loss=losses.non_saturating(),
    latent=LATENTS['gaussian'],
    latent_dim=1,
  )
  batch = {
    'images': jnp.asarray(REAL).reshape(N, 1, 1, 1),
    'example': jnp.arange(N),
  }
  schedule = place_segments(
    ({},),
    defaults={
      'batch_size': N,
      'gen_batch_size': None,
      'disc_steps': 1,
    },
    learning_rate=Pair(0.0, 0.0),
    total_images=N,
    steps_per_dispatch=1,
    ema_halflife_images=N,
    ema_rampup=None,
  )
  phase = schedule.phase(0)

  def create():
    key = jax.random.key(0)
    return state.create(key, *game.init(key, batch), NOTHING, stage=0)

  start = devices.create(create)
  batches = Pair(gen=None, disc=jax.tree.map(lambda x: x[None], batch))
  step = jax.jit(partial(train_step, game, NOTHING))
  end, metrics = step(start, batches, phase)
  return game, phase, start, end, metrics


def stats(variables):
  norm = variables['batch_stats']['BatchNorm_0']
  return float(norm['mean'][0]), float(norm['var'][0])


def test_reals_and_fakes_have_separate_batch_statistics(trained):
  """Each pass has mean 0 by its own statistics. With shared statistics, the
  mean of the reals would be above that of the fakes.
  """
  metrics = trained[-1]
  for name in ('disc/real_logit', 'disc/fake_logit'):
    assert float(metrics[name][0]) == pytest.approx(0, abs=1e-6)
  normalized = (REAL - 3) / np.sqrt(3.5)
  # The fakes are z, normalized by G and again by D.
  real_loss = np.log1p(np.exp(-normalized)).mean()
  assert metrics['disc/loss'][0] > real_loss


def test_disc_statistics_include_both_passes(trained):
  """mean <- .9 (.9 x 0 + .1 x 3) + .1 x 0; var <- .9 (.9 + .1 x 3.5) + .1 x 1:
  first of the reals, then of the fakes, which G has normalized to mean 0 and
  variance 1. G's update leaves D's statistics unchanged.
  """
  mean, var = stats(trained[3].variables.disc)
  assert mean == pytest.approx(0.27, abs=1e-6)
  assert var == pytest.approx(0.9 * 1.25 + 0.1, abs=1e-5)


def test_gen_statistics_and_their_ema_by_hand(trained):
  """G's statistics are .9 old + .1 batch, once; the EMA decay is 1/2."""
  game, phase, start, end, _ = trained
  keys = jax.vmap(
    lambda i: jax.random.fold_in(
      jax.random.fold_in(jax.random.fold_in(start.key, 2), 0), i
    )
  )(jnp.arange(N))
  z = np.asarray(game.sample_inputs(keys, {}, phase)['z'])
  mean, var = stats(end.variables.gen)
  assert mean == pytest.approx(0.1 * z.mean(), abs=1e-6)
  assert var == pytest.approx(0.9 + 0.1 * z.var(), abs=1e-5)
  average = stats(end.ema)
  assert average == pytest.approx((mean / 2, (1 + var) / 2), abs=1e-6)


def test_samples_use_the_ema_statistics(trained):
  """Computes (z - mean) / sqrt(var), independent of the batch."""
  game, phase, _, end, _ = trained
  keys = jax.random.split(jax.random.key(1), 3)
  inputs = game.sample_inputs(keys, {}, phase)
  mean, var = stats(end.ema)
  expected = (np.asarray(inputs['z'])[:, 0] - mean) / np.sqrt(var)
  images = main_output(game).sample(end.ema, inputs, phase)
  np.testing.assert_allclose(images[:, 0, 0, 0], expected, rtol=1e-5)


@pytest.mark.parametrize(
  ('gen', 'disc', 'message'),
  [
    (
      nn.Dense(3),
      Discriminator(),
      'the generator is called with (z, keys, train), but Dense takes (inputs)',
    ),
    (
      Generator(),
      nn.Sequential([nn.Dense(1)]),
      'the discriminator is called with (images, keys, train), but Sequential',
    ),
    (
      progressive.Generator(1),
      Discriminator(),
      'Generator takes (z, keys, train, stage, alpha)',
    ),
  ],
)
def test_networks_with_another_signature_raise(gen, disc, message):
  """A plain Flax module, or the network of another game."""
  with pytest.raises(UserError) as error:
    image_game(
      gen,
      disc,
      loss=losses.non_saturating(),
      latent=LATENTS['gaussian'],
      latent_dim=1,
    )
  assert message in str(error.value)
  assert '\n' not in str(error.value)
