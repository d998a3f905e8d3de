"""Tests of CycleGAN, pix2pix and super-resolution: losses, pool, devices."""

import dataclasses
import subprocess
import sys
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import ROOT
from PIL import Image
from runs import get_config

from gan_jax.errors import UserError
from gan_jax.games import cut, image_pool
from gan_jax.games.cyclegan import cyclegan_game
from gan_jax.games.game import Context, Phase
from gan_jax.games.losses import (
  least_squares_half,
  non_saturating_half,
  relativistic_average,
)
from gan_jax.games.pix2pix import pix2pix_game
from gan_jax.games.super_resolution import (
  Weights,
  reduce,
  super_resolution_game,
)
from gan_jax.models.perceptual import FeatureNetwork
from gan_jax.models.translation import ENCODER
from gan_jax.ops.bicubic import weights as bicubic_weights
from gan_jax.pair import Pair
from gan_jax.training import loop
from gan_jax.training import state as states
from gan_jax.training.step import train_step

N = 3
KEYS = jax.random.split(jax.random.key(0), N)
PHASE = Phase(
  stage=0, disc_steps=1, batch_size=N, gen_batch_size=None,
  learning_rate=Pair(jnp.float32(1), jnp.float32(0)),
  ema_decay=jnp.float32(0), disc_step=jnp.int32(0), values={},
)  # fmt: skip


class Scale(nn.Module):
  """Multiplies images by one weight; encodes them by the product and its
  square.
  """

  factor: int = 1

  @nn.compact
  def __call__(self, images, keys, train):
    x = images * self.param('w', nn.initializers.constant(0.5), ())
    self.sow('intermediates', ENCODER, jnp.concatenate([x, x**2], axis=-1))
    return x.repeat(self.factor, 1).repeat(self.factor, 2)


class Score(nn.Module):
  """Returns a logit of each pixel: the weighted sum of its channels."""

  @nn.compact
  def __call__(self, images, keys, train):
    init = nn.initializers.constant(0.25)
    return images @ self.param('v', init, (images.shape[-1],))


def draw(*shape, seed=0):
  values = np.random.default_rng(seed).uniform(-1, 1, shape)
  return np.float32(values)


def paired_batch(size=2):
  return {
    'a': jnp.asarray(draw(N, size, size, 1)),
    'b': jnp.asarray(draw(N, size, size, 1, seed=1)),
    'example': jnp.arange(N),
  }


def context(variables, state=(), inputs=None, frozen=()):
  return Context(variables, inputs, state, frozen)


def cyclegan(pool_size=0, identity=0.5):
  return cyclegan_game(
    Scale(), Score(), loss=least_squares_half(), cycle={'a': 10.0, 'b': 4.0},
    identity=identity, pool_size=pool_size,
  )  # fmt: skip


def filled(variables, **values):
  """Returns variables with these values of parameters, by network."""
  gen = {
    name: {'w': jnp.float32(values[name])} for name in ('a_to_b', 'b_to_a')
  }
  disc = {name: {'v': jnp.array([values[name]])} for name in 'ab'}
  return Pair({'params': gen}, {'params': disc})


VALUES = {'a_to_b': 0.5, 'b_to_a': -0.75, 'a': 1.5, 'b': -2.0}


def test_cyclegan_losses_by_hand():
  """Zhu et al. 2017, equations 1 to 3; D's loss is halved, G's is not."""
  game, batch = cyclegan(), paired_batch()
  variables, state = jax.jit(game.init)(jax.random.key(0), batch)
  variables = filled(variables, **VALUES)
  inputs = game.sample_inputs(KEYS, batch, PHASE)
  fakes, _ = game.generate(variables.gen, inputs, PHASE)
  a, b = (np.asarray(batch[x], np.float64) for x in 'ab')
  np.testing.assert_allclose(fakes['b'], 0.5 * a, rtol=1e-6)
  np.testing.assert_allclose(fakes['a'], -0.75 * b, rtol=1e-6)
  # D: each critic's mean over reals and fakes, halved, summed.
  disc = lambda v, real, fake: (
    (np.mean((v * real - 1) ** 2) + np.mean((v * fake) ** 2)) / 2
  )
  expected = disc(1.5, a, -0.75 * b) + disc(-2.0, b, 0.5 * a)
  (update,) = game.updates.disc
  params = variables.disc['params']
  loss, _ = update.loss(
    params, context(variables, state), batch, fakes, KEYS, PHASE
  )
  assert float(loss) == pytest.approx(expected, rel=1e-5)
  adversarial = np.mean((-2.0 * 0.5 * a - 1) ** 2)
  adversarial += np.mean((1.5 * -0.75 * b - 1) ** 2)
  cycle_a = np.abs(-0.75 * 0.5 * a - a).mean()
  cycle_b = np.abs(-0.75 * 0.5 * b - b).mean()
  identity_a = np.abs(-0.75 * a - a).mean()
  identity_b = np.abs(0.5 * b - b).mean()
  expected = adversarial + 10 * cycle_a + 4 * cycle_b
  expected += 0.5 * (10 * identity_a + 4 * identity_b)
  (update,) = game.updates.gen
  params = variables.gen['params']
  loss, aux = update.loss(
    params, context(variables, state), batch, fakes, KEYS, PHASE
  )
  assert float(loss) == pytest.approx(expected, rel=1e-5)
  assert float(aux.metrics['cycle_a']) == pytest.approx(cycle_a, rel=1e-5)


def gen_step(game, variables, state, batch):
  """Returns G's parameters after one gradient-descent step, with D frozen."""
  tx = Pair(optax.identity(), optax.identity())
  train_state = states.create(jax.random.key(0), variables, state, tx, 0)
  batches = Pair(None, jax.tree.map(lambda x: x[None], batch))
  after, _ = jax.jit(partial(train_step, game, tx))(train_state, batches, PHASE)
  return after.variables.gen['params']


def test_cyclegan_gradient_is_that_of_the_total_loss():
  """Through the fakes and the cycles; compares with finite differences."""
  game, batch = cyclegan(identity=0.25), paired_batch()
  variables, state = jax.jit(game.init)(jax.random.key(0), batch)
  variables = filled(variables, **VALUES)
  a, b = (np.asarray(batch[x], np.float64) for x in 'ab')

  def total_loss(f, g):
    loss = np.mean((-2.0 * f * a - 1) ** 2) + np.mean((1.5 * g * b - 1) ** 2)
    loss += 10 * np.abs(g * f * a - a).mean() + 4 * np.abs(f * g * b - b).mean()
    identity = 10 * np.abs(g * a - a).mean() + 4 * np.abs(f * b - b).mean()
    return loss + 0.25 * identity

  h, after = 1e-6, gen_step(game, variables, state, batch)
  grad_f = (total_loss(0.5 + h, -0.75) - total_loss(0.5 - h, -0.75)) / (2 * h)
  grad_g = (total_loss(0.5, -0.75 + h) - total_loss(0.5, -0.75 - h)) / (2 * h)
  assert float(after['a_to_b']['w']) == pytest.approx(0.5 - grad_f, rel=1e-4)
  assert float(after['b_to_a']['w']) == pytest.approx(-0.75 - grad_g, rel=1e-4)


# -- The image pool --


def pool_by_hand(pool, fakes, coins, places, size):
  """The authors' ImagePool.query, with the coins and places of our keys."""
  returned, pool = [], list(pool)
  for fake, coin, place in zip(fakes, coins, places, strict=True):
    if len(pool) < size:
      pool.append(fake)
      returned.append(fake)
    elif coin:
      returned.append(pool[place])
      pool[place] = fake
    else:
      returned.append(fake)
  return returned, pool


def choices(keys, size):
  split = jax.vmap(jax.random.split)(keys)
  coins = jax.vmap(jax.random.bernoulli)(split[:, 0])
  draw_place = lambda key: jax.random.randint(key, (), 0, size)
  return np.asarray(coins), np.asarray(jax.vmap(draw_place)(split[:, 1]))


def test_image_pool_equals_that_of_the_authors():
  """The second of four batches fills it; from then on, half is exchanged."""
  size, expected = 5, []
  pool = image_pool.empty(size, (1, 1, 1))
  exchange = jax.jit(partial(image_pool.exchange, axis_name=None))
  for step in range(4):
    keys = jax.random.split(jax.random.key(step), 4)
    fakes = jnp.arange(4.0).reshape(4, 1, 1, 1) + 10 * step
    returned, pool = exchange(pool, fakes, keys)
    flat = np.asarray(fakes).ravel().tolist()
    expected_returned, expected = pool_by_hand(
      expected, flat, *choices(keys, size), size
    )
    assert np.asarray(returned).ravel().tolist() == expected_returned
    assert int(pool.count) == len(expected)
    images = np.asarray(pool.images).ravel()[: len(expected)]
    assert images.tolist() == expected
  assert expected_returned != flat  # something was exchanged


def on_devices(count, function, in_axes):
  """Maps a function over devices, by pmap or by vmap with collectives."""
  transform = jax.pmap if count <= jax.device_count() else jax.vmap
  return transform(function, axis_name='devices', in_axes=in_axes)


@pytest.mark.parametrize('devices', (2, 8))
def test_image_pool_is_the_same_on_all_devices(devices):
  pool = image_pool.empty(3, (1, 1, 1))
  keys = jax.random.split(jax.random.key(7), 8)
  fakes = jnp.arange(8.0).reshape(8, 1, 1, 1)
  returned, after = image_pool.exchange(pool, fakes, keys, None)
  assert np.asarray(returned).ravel().tolist() != list(range(8))
  exchange = partial(image_pool.exchange, axis_name='devices')
  parts = on_devices(devices, exchange, (None, 0, 0))(
    pool, fakes.reshape(devices, -1, 1, 1, 1), keys.reshape(devices, -1)
  )
  np.testing.assert_array_equal(parts[0].reshape(8, 1, 1, 1), returned)
  for device in range(devices):
    np.testing.assert_array_equal(parts[1].images[device], after.images)


def test_disc_update_fills_the_image_pool():
  """The new game state has fakes of this iteration."""
  game, batch = cyclegan(pool_size=2), paired_batch()
  variables, state = jax.jit(game.init)(jax.random.key(0), batch)
  assert int(state['a'].count) == 0
  inputs = game.sample_inputs(KEYS, batch, PHASE)
  fakes, _ = game.generate(variables.gen, inputs, PHASE)
  (update,) = game.updates.disc
  _, aux = update.loss(
    variables.disc['params'], context(variables, state), batch, fakes, KEYS,
    PHASE,
  )  # fmt: skip
  for name in 'ab':
    pool = aux.game_state[name]
    assert int(pool.count) == 2
    kept = np.asarray(pool.images)
    known = np.asarray(fakes[name])
    assert all(any((x == y).all() for y in known) for x in kept)


# -- pix2pix --


def test_pix2pix_losses_by_hand():
  """Cross-entropy on both images of a pair, D's halved; 100 L1."""
  game = pix2pix_game(
    Scale(), Score(), loss=non_saturating_half(), pixel=100.0,
    direction='b_to_a',
  )  # fmt: skip
  batch = paired_batch()
  variables, state = jax.jit(game.init)(jax.random.key(0), batch)
  v = jnp.array([0.5, -1.5])
  variables = Pair({'params': {'w': jnp.float32(0.3)}}, {'params': {'v': v}})
  inputs = game.sample_inputs(KEYS, batch, PHASE)
  fakes, _ = game.generate(variables.gen, inputs, PHASE)
  a, b = (np.asarray(batch[x], np.float64) for x in 'ab')
  softplus = lambda x: np.log1p(np.exp(x))
  real, fake = 0.5 * b - 1.5 * a, 0.5 * b - 1.5 * 0.3 * b
  losses = {
    'disc': (softplus(-real).mean() + softplus(fake).mean()) / 2,
    'gen': softplus(-fake).mean() + 100 * np.abs(0.3 * b - a).mean(),
  }
  for player, expected in losses.items():
    (update,) = getattr(game.updates, player)
    params = getattr(variables, player)['params']
    loss, _ = update.loss(
      params, context(variables, state), batch, fakes, KEYS, PHASE
    )
    assert float(loss) == pytest.approx(expected, rel=1e-5)
  (output,) = game.outputs.values()
  np.testing.assert_array_equal(output.given(batch), batch['b'])
  np.testing.assert_array_equal(output.target(batch), batch['a'])


# -- Super-resolution --


def super_resolution(**weights):
  # The feature network doubles images.
  double = FeatureNetwork(lambda: jnp.float32(2), lambda w, images: w * images)
  return super_resolution_game(
    Scale(factor=2), Score(), scale=2, loss=non_saturating_half(),
    pixel_loss='l1', weights=Weights(**weights),
    features=double if weights['feature'] else None,
  )  # fmt: skip


def test_super_resolution_losses_by_hand():
  game = super_resolution(pixel=0.5, feature=3.0, adversarial=0.1)
  images = draw(N, 4, 4, 1)
  batch = {'images': jnp.asarray(images), 'example': jnp.arange(N)}
  variables, state = jax.jit(game.init)(jax.random.key(0), batch)
  inputs = game.sample_inputs(KEYS, batch, PHASE)
  small = np.asarray(inputs['images'])
  assert small.shape == (N, 2, 2, 1)
  fakes, _ = game.generate(variables.gen, inputs, PHASE)
  outputs = (0.5 * small).repeat(2, 1).repeat(2, 2).astype(np.float64)
  pixel = np.abs(outputs - images).mean()
  adversarial = np.log1p(np.exp(-0.25 * outputs)).mean()
  expected = 0.5 * pixel + 3 * 2 * pixel + 0.1 * adversarial
  (update,) = game.updates.gen
  loss, aux = update.loss(
    variables.gen['params'],
    context(variables, state, frozen=game.frozen()),
    batch, fakes, KEYS, PHASE,
  )  # fmt: skip
  assert float(loss) == pytest.approx(expected, rel=1e-5)
  assert float(aux.metrics['feature_loss']) == pytest.approx(
    2 * pixel, rel=1e-5
  )


def test_psnr_stage_has_no_discriminator():
  game = super_resolution(pixel=1.0, feature=0.0, adversarial=0.0)
  batch = {'images': jnp.asarray(draw(N, 4, 4, 1)), 'example': jnp.arange(N)}
  variables, state = jax.jit(game.init)(jax.random.key(0), batch)
  assert variables.disc == {'params': {}}
  after = gen_step(game, variables, state, batch)
  assert float(after['w']) != 0.5


def test_reduced_images_have_8_bits():
  """MATLAB's bicubic on uint8: rounded, clipped, and scaled to [-1, 1]."""
  image = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 1))
  matrix = bicubic_weights(16, 0.25)
  exact = np.einsum('nhwc,Hh,Ww->nHWc', image, matrix, matrix)
  expected = np.clip(np.rint(exact), 0, 255)
  reduced = reduce(jnp.asarray(np.float32(image / 127.5 - 1)), 4)
  levels = (np.asarray(reduced, np.float64) + 1) * 127.5
  assert abs(levels - np.rint(levels)).max() < 1e-3
  # (A value between two bytes may round either way in float32.)
  assert abs(levels - expected).max() < 1.01
  assert (np.rint(levels) == expected).mean() > 0.9


# -- Devices --


def games(axis_name):
  """Yields a CycleGAN with pools, a relativistic super-resolution, and CUT."""
  yield cyclegan_game(
    Scale(), Score(), loss=least_squares_half(), cycle={'a': 10.0, 'b': 4.0},
    identity=0.5, pool_size=3, axis_name=axis_name,
  )  # fmt: skip
  yield super_resolution_game(
    Scale(factor=2), Score(), scale=2, loss=relativistic_average(),
    pixel_loss='l2', weights=Weights(0.5, 0.0, 0.1), axis_name=axis_name,
  )  # fmt: skip
  yield cut.cut_game(
    Scale(), Score(), loss=least_squares_half(), direction='a_to_b',
    weights=cut.Weights(0.5, 0.5, 0.2, patches=5), axis_name=axis_name,
  )  # fmt: skip


def assert_rounded(x, y):
  """Checks equality up to the rounding of the largest value."""
  largest = max(1, abs(y).max())
  np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6 * largest)


@pytest.mark.parametrize(
  'devices', (pytest.param(2, marks=pytest.mark.slow), 8)
)
@pytest.mark.parametrize(
  'index', (0, 1, pytest.param(2, marks=pytest.mark.slow))
)
def test_devices_train_as_one(index, devices):
  """The same parameters and the same pool after three iterations."""
  game, mapped = list(games(None))[index], list(games('devices'))[index]
  n, tx = 8, Pair(optax.sgd(-0.1), optax.sgd(-0.1))
  phase = dataclasses.replace(
    PHASE, learning_rate=Pair(jnp.float32(1), jnp.float32(1))
  )
  batch = {
    **{x: jnp.asarray(draw(n, 4, 4, 1, seed=i)) for i, x in enumerate('ab')},
    'images': jnp.asarray(draw(n, 4, 4, 1, seed=2)),
    'example': jnp.arange(n),
  }
  variables, pools = jax.jit(game.init)(jax.random.key(0), batch)
  one = states.create(jax.random.key(0), variables, pools, tx, 0)
  replicated = jax.tree.map(lambda x: jnp.stack([x] * devices), one)
  step = jax.jit(partial(train_step, game, tx))
  step_mapped = on_devices(
    devices,
    partial(train_step, mapped, tx, axis_name='devices'),
    (0, 0, None),
  )
  split = lambda x: x.reshape(devices, 1, n // devices, *x.shape[1:])
  for _ in range(3):
    batches = Pair(None, jax.tree.map(lambda x: x[None], batch))
    one, _ = step(one, batches, phase)
    replicated, _ = step_mapped(
      replicated, Pair(None, jax.tree.map(split, batch)), phase
    )
  for device in range(devices):
    part = jax.tree.map(lambda x, i=device: x[i], replicated)
    for name in ('variables', 'game_state'):
      jax.tree.map(assert_rounded, getattr(part, name), getattr(one, name))
  changes = jax.tree.map(
    lambda x, y: abs(x - y).max(), one.variables, variables
  )
  assert min(jax.tree.leaves(changes)) > 1e-5


ON_8_DEVICES = """
import os, sys
sys.path.insert(0, 'tests')
import conftest  # which sets two devices
os.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=8'
import jax
import test_translation as tests
assert jax.device_count() == 8
tests.test_image_pool_is_the_same_on_all_devices(8)
for index in range(3):
  tests.test_devices_train_as_one(index, 8)
"""


@pytest.mark.slow
def test_8_devices_train_as_one():
  """Runs the tests above by pmap, in a process with 8 devices."""
  subprocess.run([sys.executable, '-c', ON_8_DEVICES], cwd=ROOT, check=True)


@pytest.mark.parametrize(
  'name, source, message',
  [
    ('pix2pix_facades', 'digits', 'trains on a and b .* set .*pairs:FOLDER'),
    ('srgan_folder', 'digit_pairs', 'trains on images .* has a and b'),
  ],
)
def test_data_of_the_wrong_kind_raise(name, source, message, tmp_path):
  config = get_config(name, 'tiny')
  config.data.source = source
  with pytest.raises(UserError, match=message):
    loop.train(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_empty_folder_of_two_is_named(tmp_path):
  config = get_config('cyclegan_folder', 'tiny')
  for name in 'ab':
    (tmp_path / name).mkdir()
    config.data[name] = f'folder:{tmp_path}/{name}'
  for i in range(2):
    Image.new('L', (20, 20)).save(tmp_path / 'a' / f'{i}.png')
  with pytest.raises(UserError, match='/b has 0 images, but at least 2'):
    loop.train(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()
