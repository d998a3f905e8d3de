"""Tests of progressive growing against the paper: networks, game and runs."""

import functools
import itertools
import math
import time
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import get_config, metrics, state_arrays

import gan_jax
from gan_jax import config as cfg
from gan_jax import devices, games
from gan_jax.data.on_device import read
from gan_jax.data.order import Stream
from gan_jax.data.source import in_memory
from gan_jax.errors import UserError
from gan_jax.games.game import main_output
from gan_jax.games.latents import LATENTS
from gan_jax.games.losses import LOSSES
from gan_jax.games.progressive import progressive_game
from gan_jax.models import progressive
from gan_jax.models.layers import (
  EqualConv,
  EqualDense,
  minibatch_stddev,
  pixel_norm,
)
from gan_jax.models.progressive import is_used
from gan_jax.modes import dispatch_timer
from gan_jax.ops.resample import average_pool
from gan_jax.training import checkpoint, loop, optimizers
from gan_jax.training.dispatch import train_dispatch
from gan_jax.training.feed import index_batch
from gan_jax.training.schedule import make_schedule
from gan_jax.training.summary import describe_schedule, sizes_of

N, LATENT, RESOLUTION = 8, 6, 16
KEYS = jax.random.split(jax.random.key(0), N)
SMALL = {'features': 16, 'most_features': 6}
DRAW = lambda *shape: jnp.asarray(
  np.random.default_rng(0).normal(size=shape), jnp.float32
)


def count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


# -- Layers --


def test_equalized_layers_by_hand():
  """Parameters are N(0, 1), and are divided by sqrt(inputs / 2) in use."""
  x = DRAW(N, 200)
  dense = EqualDense(300)
  params = dense.init(jax.random.key(0), x)['params']
  w = np.asarray(params['kernel'], np.float64)
  assert abs(w.std() - 1) < 0.02
  assert not params['bias'].any()
  expected = np.asarray(x) @ w * math.sqrt(2 / 200)
  np.testing.assert_allclose(
    dense.apply({'params': params}, x), expected, rtol=2e-3, atol=1e-4
  )
  params = {**params, 'bias': jnp.full(300, 7.0)}
  shifted = dense.apply({'params': params}, x)
  np.testing.assert_allclose(shifted, expected + 7, rtol=2e-3, atol=1e-4)

  images, conv = DRAW(N, 5, 5, 4), EqualConv(3, 3, gain=1.0)
  params = conv.init(jax.random.key(0), images)['params']
  padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
  window = padded[:, 2:5, 1:4]  # around the pixel (2, 1)
  expected = np.einsum('nijc,ijcd->nd', window, params['kernel']) / math.sqrt(
    9 * 4
  )
  output = conv.apply({'params': params}, images)
  np.testing.assert_allclose(output[:, 2, 1], expected, rtol=1e-4, atol=1e-5)


def test_pixel_norm_by_hand():
  x = jnp.array([[[[3.0, 4.0], [0.0, 0.0]]]])
  root = math.sqrt(12.5)
  np.testing.assert_allclose(
    pixel_norm(x), [[[[3 / root, 4 / root], [0, 0]]]], rtol=1e-6
  )
  np.testing.assert_allclose(pixel_norm(x[0, 0]), pixel_norm(x)[0, 0])


@pytest.mark.parametrize(
  'group, n, size',
  [
    *((4, n, size) for n, size in ((8, 4), (6, 3), (14, 2), (3, 3), (5, 1))),
    *((16, n, n) for n in (16, 14, 6, 3)),  # the paper's batches, whole
    (16, 32, 16),
  ],
)
def test_minibatch_stddev_by_hand(group, n, size):
  """The group is the largest divisor of the batch up to `group`."""
  x = DRAW(n, 2, 3, 5)
  out = np.asarray(minibatch_stddev(x, group, None))
  np.testing.assert_array_equal(out[..., :5], x)
  for first in range(0, n, size):
    group = np.asarray(x[first : first + size], np.float64)
    expected = np.sqrt(group.var(0) + 1e-8).mean()
    stddev = out[first : first + size, ..., 5]
    np.testing.assert_allclose(stddev, expected, rtol=1e-5)


@pytest.mark.parametrize('n', [4, 6, 8])
def test_minibatch_stddev_is_the_same_on_two_devices(n):
  """Also for groups that span both devices; gradients are the same too."""
  x, weights = DRAW(n, 2, 2, 3), DRAW(n, 2, 2, 4) ** 2

  def loss(x, weights, axis_name):
    return jnp.sum(minibatch_stddev(x, 4, axis_name) ** 2 * weights)

  split = lambda x: x.reshape(2, n // 2, *x.shape[1:])
  on_devices = jax.pmap(
    lambda x, w: jax.value_and_grad(loss)(x, w, 'd'), axis_name='d'
  )
  value, grads = on_devices(split(x), split(weights))
  expected = jax.value_and_grad(loss)(x, weights, None)
  np.testing.assert_allclose(value.sum(), expected[0], rtol=1e-5)
  np.testing.assert_allclose(grads.reshape(x.shape), expected[1], rtol=1e-4)


# -- Networks --


def test_parameter_counts_at_1024_equal_the_paper():
  """Karras et al. 2018, table 2: 23.1 million each."""
  last = {'train': False, 'stage': 16}
  gen = jax.eval_shape(
    lambda: progressive.Generator(3).init(
      jax.random.key(0), jnp.zeros((N, 512)), KEYS, **last
    )
  )
  disc = jax.eval_shape(
    lambda: progressive.Discriminator().init(
      jax.random.key(0), jnp.zeros((N, 1024, 1024, 3)), KEYS, **last
    )
  )
  # Weights of each convolution and dense layer, and one bias per channel.
  conv = lambda c, d, k=3: k * k * c * d + d
  wide = [512, 512, 512, 512, 256, 128, 64, 32, 16]
  expected = 512 * 16 * 512 + 512 + conv(512, 512)
  expected += sum(
    conv(c, d) + conv(d, d) for c, d in itertools.pairwise(wide)
  ) + sum(conv(c, 3, 1) for c in wide)
  assert count(gen) == expected == 23_079_115
  expected = conv(513, 512) + 16 * 512 * 512 + 512 + 512 + 1
  expected += sum(
    conv(c, c) + conv(c, d) for d, c in itertools.pairwise(wide)
  ) + sum(conv(3, c, 1) for c in wide)
  assert count(disc) == expected == 23_087_249
  # At 4 to 1024 pixels.
  widths = [512, 512, 512, 512, 256, 128, 64, 32, 16]
  for level, width in enumerate(widths):
    name = f'{4 * 2**level}x{4 * 2**level}'
    to_rgb = gen['params'][f'{name}_to_rgb']['kernel']
    assert to_rgb.shape == (1, 1, width, 3)
    from_rgb = disc['params'][f'{name}_from_rgb']['kernel']
    assert from_rgb.shape == (1, 1, 3, width)
    conv = 'conv' if level == 0 else 'conv_0'
    below = widths[level - 1] if level else width
    kernel = gen['params'][name][conv]['kernel']
    assert kernel.shape == (3, 3, below, width)
    kernel = disc['params'][name][conv]['kernel']
    # The minibatch stddev is concatenated at 4x4.
    assert kernel.shape == (3, 3, width + (level == 0), width)


@pytest.fixture(scope='module')
def players():
  """(generate, discriminate) of both networks up to 16x16, with non-zero
  biases.
  """
  gen = progressive.Generator(3, **SMALL)
  disc = progressive.Discriminator(**SMALL)
  z, images = DRAW(N, LATENT), DRAW(N, RESOLUTION, RESOLUTION, 3)
  last = {'train': False, 'stage': 4}
  init = lambda: (
    gen.init(jax.random.key(1), z, KEYS, **last),
    disc.init(jax.random.key(2), images, KEYS, **last),
  )
  variables = jax.jit(init)()
  variables = jax.tree.map(lambda x: x + 0.1, variables)
  generate = partial(gen.apply, variables[0], z, KEYS, True)
  discriminate = lambda images, **kwargs: disc.apply(
    variables[1], images, KEYS, True, **kwargs
  )
  jit = partial(jax.jit, static_argnames='stage')
  return jit(generate), jit(discriminate)


def downsampled(images):
  n, h, w, c = images.shape
  return np.asarray(images).reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4))


def upsampled(images):
  return np.asarray(images).repeat(2, 1).repeat(2, 2)


@pytest.mark.parametrize('stage', [1, 3])
def test_level_fades_in_from_the_level_below(players, stage):
  """At alpha 0 both players equal those of the stage before, at 1 those of the
  stage after.
  """
  generate, discriminate = players
  close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
  old_fakes, new_fakes = generate(stage=stage - 1), generate(stage=stage + 1)
  close(generate(stage=stage, alpha=0.0), upsampled(old_fakes))
  close(generate(stage=stage, alpha=1.0), new_fakes)
  mixed_fakes = generate(stage=stage, alpha=0.25)
  close(mixed_fakes, 0.75 * upsampled(old_fakes) + 0.25 * new_fakes)
  side = 4 * 2 ** ((stage + 1) // 2)
  assert new_fakes.shape == (N, side, side, 3)

  images = DRAW(N, side, side, 3)
  old_logits = discriminate(jnp.asarray(downsampled(images)), stage=stage - 1)
  new_logits = discriminate(images, stage=stage + 1)
  close(discriminate(images, stage=stage, alpha=0.0), old_logits)
  close(discriminate(images, stage=stage, alpha=1.0), new_logits)
  assert abs(np.asarray(new_logits - old_logits)).max() > 0.01


def test_is_used_lists_the_modules_of_each_stage():
  names = [
    f'{side}x{side}{rgb}' for side in (4, 8, 16) for rgb in ('', '_to_rgb')
  ]
  used_at = lambda stage: [name for name in names if is_used(name, stage)]
  assert used_at(0) == ['4x4', '4x4_to_rgb']
  assert used_at(1) == ['4x4', '4x4_to_rgb', '8x8', '8x8_to_rgb']
  assert used_at(2) == ['4x4', '8x8', '8x8_to_rgb']
  assert used_at(3) == ['4x4', '8x8', '8x8_to_rgb', '16x16', '16x16_to_rgb']
  assert used_at(4) == ['4x4', '8x8', '16x16', '16x16_to_rgb']


@functools.cache
def compute(**fields):
  """Returns images and logits, G's gradient of these, and variables, while 8x8
  fades in.
  """
  gen = progressive.Generator(3, **SMALL, **fields)
  disc = progressive.Discriminator(**SMALL, **fields)
  z, full = DRAW(N, LATENT), {'train': True, 'stage': 2}
  images = jnp.zeros((N, 8, 8, 3))
  last = {'train': True, 'stage': 1, 'alpha': 0.5}

  def run():
    gen_vars = gen.init(jax.random.key(1), z, KEYS, **full)
    disc_vars = disc.init(jax.random.key(2), images, KEYS, **full)

    def score(gen_vars):
      images = gen.apply(gen_vars, z, KEYS, **last)
      logits = disc.apply(disc_vars, images, KEYS, **last)
      return jnp.sum(logits**2), (images, logits)

    grads, fakes = jax.grad(score, has_aux=True)(gen_vars)
    return fakes, grads, (gen_vars, disc_vars)

  return jax.jit(run)()


def test_remat_gives_the_same_results():
  plain, rematerialized = compute(), compute(remat=True)
  for x, y in zip(
    jax.tree.leaves(plain), jax.tree.leaves(rematerialized), strict=True
  ):
    np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5)


def test_bfloat16_has_the_gradients_of_float32():
  """For all arrays, also biases, whose gradients are long sums: 16 images of
  32x32.
  """
  n, keys = 16, jax.random.split(jax.random.key(0), 16)
  z, images = DRAW(n, LATENT), DRAW(n, 32, 32, 3) ** 2
  last = {'train': True, 'stage': 6}

  def gradients(dtype):
    gen = progressive.Generator(3, 512, 16, dtype=dtype)
    disc = progressive.Discriminator(512, 16, dtype=dtype)
    gen_vars = gen.init(jax.random.key(1), z, keys, **last)
    disc_vars = disc.init(jax.random.key(2), images, keys, **last)

    def gen_score(gen_vars):
      return jnp.sum(gen.apply(gen_vars, z, keys, **last) * images)

    def disc_score(disc_vars):
      return jnp.sum(disc.apply(disc_vars, images, keys, **last))

    return jax.grad(gen_score)(gen_vars), jax.grad(disc_score)(disc_vars)

  exact, approximate = (
    jax.jit(partial(gradients, dtype))()
    for dtype in (jnp.float32, jnp.bfloat16)
  )
  for x, y in zip(
    jax.tree.leaves(exact), jax.tree.leaves(approximate), strict=True
  ):
    # (With sums in bfloat16, gradients of biases are wrong by 60% or more.)
    assert np.linalg.norm(x - y) <= 0.2 * np.linalg.norm(x), x.shape


def test_bfloat16_keeps_float32_parameters_and_outputs():
  (*exact, _, _), (*approximate, _, variables) = (
    compute(),
    compute(dtype=jnp.bfloat16),
  )
  assert {x.dtype for x in jax.tree.leaves(variables)} == {np.dtype('float32')}
  for x, y in zip(
    jax.tree.leaves(exact), jax.tree.leaves(approximate), strict=True
  ):
    assert y.dtype == jnp.float32
    assert 0 < abs(x - y).mean() < 0.05 * jnp.std(x)


# -- The game --


def small_game():
  return progressive_game(
    progressive.Generator(3, **SMALL),
    progressive.Discriminator(**SMALL),
    resolution=RESOLUTION,
    loss=LOSSES['wasserstein'](),
    latent=LATENTS['gaussian'],
    latent_dim=LATENT,
  )


def schedule_of(config, *segments):
  config.schedule, config.total_images = segments, 320
  return make_schedule(config)


def test_reals_fade_in_as_fakes_do():
  """D gets reals of the stage's resolution, blended with upsampled smaller
  reals.
  """
  disc_inputs = {}

  class Spy(progressive.Discriminator):
    @nn.compact
    def __call__(self, images, keys, train, stage, alpha=1.0):
      disc_inputs.setdefault(stage, images)
      return images.mean((1, 2, 3)) * self.param('w', lambda key: jnp.ones(()))

  game = small_game()
  spy_game = progressive_game(
    progressive.Generator(3, **SMALL),
    Spy(),
    resolution=RESOLUTION,
    loss=LOSSES['wasserstein'](),
    latent=LATENTS['gaussian'],
    latent_dim=LATENT,
  )
  config = get_config('progressive_celebahq', 'tiny')
  images = DRAW(N, RESOLUTION, RESOLUTION, 3)
  batch = {'images': images, 'example': jnp.arange(N)}
  variables, _ = jax.jit(game.init)(jax.random.key(0), batch)
  disc_vars = {'params': {'w': jnp.ones(())}}
  variables = variables._replace(disc=disc_vars)
  segments = (
    {'stage': 4, 'images': 8},
    {'stage': 3, 'images': 64, 'values': {'alpha': ('linear', 0.25, 0.25)}},
    {'stage': 0},
  )
  schedule = schedule_of(config, *segments)
  context = games.Context(variables, {}, (), ())
  for placed in schedule.segments:
    phase = schedule.phase(placed.first_step)
    inputs = game.sample_inputs(KEYS, {}, phase)
    fakes, _ = game.generate(variables.gen, inputs, phase)
    loss = spy_game.updates.disc[0].loss
    small = {**batch, 'images': average_pool(images, game.downsample(phase))}
    loss(disc_vars['params'], context, small, fakes, KEYS, phase)
  close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
  close(disc_inputs[4], images)
  close(
    disc_inputs[3],
    0.75 * upsampled(downsampled(images)) + 0.25 * np.asarray(images),
  )
  close(disc_inputs[0], downsampled(downsampled(images)))


def test_samples_have_the_resolution_of_the_data():
  """At any stage, by repeating pixels."""
  game, config = small_game(), get_config('progressive_celebahq', 'tiny')
  batch = {'images': jnp.zeros((N, RESOLUTION, RESOLUTION, 3))}
  variables, _ = jax.jit(game.init)(jax.random.key(0), batch)
  phase = schedule_of(config, {'stage': 2}).phase(0)
  inputs = game.sample_inputs(KEYS, {}, phase)
  fakes, _ = game.generate(variables.gen, inputs, phase)
  assert fakes.shape == (N, 8, 8, 3)
  np.testing.assert_array_equal(
    main_output(game).sample(variables.gen, inputs, phase), upsampled(fakes)
  )


def sizes(config, batch):
  """Returns the size of G's images in each segment of the schedule."""
  init = games.make(config).init
  variables, _ = jax.eval_shape(init, jax.random.key(0), batch)
  return sizes_of(config, make_schedule(config), variables.gen, batch)


def test_invalid_stages_raise(tmp_path):
  config = get_config('progressive_celebahq', 'tiny')
  batch = {
    'images': jnp.zeros((N, RESOLUTION, RESOLUTION, 3)),
    'example': jnp.arange(N),
  }
  for segment, message in (
    (
      {'stage': 5, 'values': {'alpha': 0.5}},
      'stage 5 is 32x32, but the data is 16x16',
    ),
    ({'stage': 3}, r"stage 3 fades in: it needs 'values': \{'alpha'"),
    ({'stage': 2, 'values': {'alpha': 0.5}}, 'stage 2 does not fade in'),
    (
      {'stage': 2, 'images': 'growth.fade_image'},
      "did you mean 'growth.fade_images'",
    ),
  ):
    config.schedule, config.total_images = (segment,), 320
    with pytest.raises(UserError, match=message):
      sizes(config, batch)
  with pytest.raises(UserError, match='no key'):
    loop.train(
      cfg.changed(config, 'schedule', ({'stages': 2},)), tmp_path / 'a'
    )
  assert not (tmp_path / 'a').exists()


def test_batch_sizes_equal_the_paper():
  """G's batches are as large as D's. D's stddev groups are whole batches in the
  paper, and of 4 in the later implementation.
  """
  config = get_config('progressive_celebahq')
  segments = [row.segment for row in make_schedule(config).segments]
  expected = [16] + [16] * 10 + [14] * 2 + [6] * 2 + [3] * 2
  assert [segment.batch_size for segment in segments] == expected
  assert [segment.gen_batch_size for segment in segments] == expected
  assert config.model.disc.group == 16
  config = get_config('progressive_celebahq', 'many')
  segments = [row.segment for row in make_schedule(config).segments]
  assert [segment.gen_batch_size for segment in segments[:3]] == [512, 256, 256]
  assert config.model.disc.group == 4
  half_life = np.log(0.5) / np.log(0.999) * 16
  assert half_life == pytest.approx(config.ema_halflife_images, rel=0.01)


def test_schedule_resolves_lengths_named_by_key():
  config = get_config('progressive_celebahq', 'tiny')
  config.growth.fade_images = 128
  config.growth.at_8.batch_size = 32
  lengths = lambda: [
    row.steps * row.segment.images_per_step
    for row in make_schedule(config).segments
  ]
  assert lengths() == [64, 128, 64, 128, 64]
  config.total_images = 320
  assert lengths() == [64, 128, 64, 64]
  rows = make_schedule(config).segments
  assert [row.segment.batch_size for row in rows] == [32, 32, 32, 8]
  batch = {
    'images': jnp.zeros((N, RESOLUTION, RESOLUTION, 3)),
    'example': jnp.arange(N),
  }
  image_sizes = sizes(config, batch)
  assert image_sizes == ['4x4', '8x8', '8x8', '16x16']
  description = describe_schedule(make_schedule(config), image_sizes, {})
  cells = description.splitlines()[2].split()
  assert cells == [
    '64',
    '128',
    '1',
    '8x8',
    'alpha',
    '0',
    'to',
    '1',
    '(linear)',
    '32',
    '32',  # G's own
    '0.001',
  ]


# -- The work of an iteration --


def layer_multiplications(config, stage):
  """Returns the multiplications of each layer of G and D for one image, in
  order.

  D's are in four parts: from RGB; the blocks; the layers after the minibatch
  stddev, without the last; the last.
  """
  level, fading = (stage + 1) // 2, stage % 2 == 1
  model, channels = config.model.gen, config.data.channels
  width = lambda k: min(model.features // 2 ** (k + 1), model.most_features)
  pixels = lambda k: (4 * 2**k) ** 2
  shown = [level, level - 1] if fading else [level]
  rgb = [channels * width(k) * pixels(k) for k in shown]
  first = config.game.latent_dim * 16 * width(0)
  gen = [first, 9 * width(0) ** 2 * 16]
  blocks = []
  for k in range(1, level + 1):
    gen += [
      9 * width(k - 1) * width(k) * pixels(k),
      9 * width(k) ** 2 * pixels(k),
    ]
    blocks += [
      9 * width(k) ** 2 * pixels(k), 9 * width(k) * width(k - 1) * pixels(k)
    ]  # fmt: skip
  end = [9 * (width(0) + 1) * width(0) * 16, 16 * width(0) * width(-1)]
  return gen + rgb, first, (rgb, blocks, end, [width(-1)])


@pytest.mark.parametrize('stage', range(5))
def test_iteration_flops_equal_those_by_hand(stage):
  """WGAN-GP: one D update, then one G update on its own fakes.

  The gradient of a layer's weights takes as many multiplications as the forward
  pass, and so does that of its input. G's first layer has no gradient for z,
  and D's first none for the images, except in the penalty, which is this
  gradient. The penalty is differentiated again: each of its products in both
  factors, except that of the last layer, where the gradient starts with ones;
  and, because the minibatch stddev is not linear, the layers before it once
  more.
  """
  config = get_config('progressive_celebahq', 'tiny')
  gen, first, (rgb, blocks, end, last) = layer_multiplications(config, stage)
  disc = sum(rgb) + sum(blocks) + sum(end) + sum(last)
  reals_and_fakes = 2 * (disc + disc + disc - sum(rgb))
  penalty = disc - sum(last) + disc  # the gradient for the images
  penalty += disc + disc - sum(last)  # that, differentiated
  penalty += sum(rgb) + sum(blocks) + sum(blocks)
  gen_update = sum(gen) + 2 * disc + sum(gen) + sum(gen) - first
  for_disc = sum(gen)  # G's fakes for D
  by_hand = for_disc + reals_and_fakes + penalty + gen_update
  schedule, source = (
    make_schedule(config),
    dispatch_timer.generated_source(config),
  )
  placed = schedule.segments[stage]
  assert placed.segment.stage == stage
  counted = dispatch_timer.flops_per_dispatch(config, source, placed.first_step)
  assert counted / placed.segment.batch_size == 2 * by_hand


# -- Whole runs --


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A `:tiny` run, and the names of the functions that it compiled.

  Without the gradient penalty, which takes half of the compilation.
  """
  compiled = []

  def record(event, seconds, **fields):
    if event.endswith('backend_compile_duration'):
      compiled.append(fields.get('fun_name'))

  workdir = tmp_path_factory.mktemp('progressive')
  config = get_config('progressive_celebahq', 'tiny')
  config.game.loss = {'name': 'non_saturating'}
  del config.game.penalties
  jax.clear_caches()
  jax.monitoring.register_event_duration_secs_listener(record)
  try:
    loop.train(config, workdir)
  finally:
    jax.monitoring.unregister_event_duration_listener(record)
  return config, workdir, compiled


# The last iterations of the stages: 2 of 32 images, 4 and 4 of 16, 8 and 8 of
# 8.
ENDS = [2, 6, 10, 18, 26]


def test_each_stage_compiles_once(run):
  _, _, compiled = run
  assert sum('train_dispatch' in name for name in compiled) == 5


def test_last_checkpoint_of_each_stage_is_kept(run):
  _, workdir, _ = run
  assert set(ENDS) <= set(checkpoint.steps(workdir))
  shapes = [
    {k: len(v) for k, v in state_arrays(workdir, step).items()} for step in ENDS
  ]
  assert all(shape == shapes[0] for shape in shapes)


def test_log_records_have_stage_resolution_and_alpha(run):
  """4x4; 8x8 fading in, in 4 iterations, and stable; 16x16 likewise, in 8."""
  _, workdir, _ = run
  lines = {line['step']: line for line in metrics(workdir)}
  for stage, end in enumerate(ENDS):
    line = lines[end]
    side = {0: 4, 1: 8, 2: 8, 3: 16, 4: 16}[stage]
    logged = line['schedule/stage'], line['schedule/resolution']
    assert logged == (stage, side)
    steps = {1: 4, 3: 8}.get(stage)  # alpha is one iteration short of 1
    alpha = steps and pytest.approx((steps - 1) / steps)
    assert line.get('schedule/alpha') == alpha


def in_stage(name, stage):
  """Returns whether the stage uses an array of the state; None: it has no
  level.
  """
  module = next(
    (part for part in name.replace("'", '|').split('|') if 'x' in part
     and part[0].isdigit()), None
  )  # fmt: skip
  return None if module is None else is_used(module, stage)


def test_unused_levels_stay_unchanged(run):
  """Parameters and the EMA are equal bit for bit, and Adam's moments are 0."""
  config, workdir, _ = run
  source = in_memory({'images': np.zeros((64, 16, 16, 3), np.uint8)})
  tx = optimizers.make(config.optimizer.to_dict())
  create = dispatch_timer.make_create_state(
    games.make(config), tx, config, source
  )
  start = devices.create(create)._asdict()
  named = jax.tree_util.tree_leaves_with_path(start)
  states = [
    {jax.tree_util.keystr(k): np.asarray(v).tobytes() for k, v in named
     if not jax.dtypes.issubdtype(v.dtype, jax.dtypes.prng_key)}
  ] + [state_arrays(workdir, step) for step in ENDS]  # fmt: skip
  num_changed = num_unchanged = 0
  for stage, (before, after) in enumerate(itertools.pairwise(states)):
    for name, value in after.items():
      is_active = in_stage(name, stage)
      if is_active is None or name not in before:
        continue
      if 'opt_state' in name:
        assert any(value) == is_active, (stage, name)
      elif is_active:
        num_changed += value != before[name]
      else:
        assert value == before[name], (stage, name)
        num_unchanged += 1
  assert num_changed > 100
  assert num_unchanged > 50


@pytest.mark.slow
@pytest.mark.parametrize('images', [96, 216])
def test_run_stopped_during_fade_in_resumes_bit_for_bit(run, images, tmp_path):
  """The stopped run can be loaded."""
  config, workdir, _ = run
  short = cfg.changed(config, 'total_images', images)
  loop.train(short, tmp_path)
  middle = gan_jax.load(tmp_path)
  assert middle.sample(3).shape == (3, 16, 16, 3)
  phase = make_schedule(config).phase(middle.step)
  assert 0 < phase.values['alpha'] < 1
  loop.train(config, tmp_path)
  assert state_arrays(tmp_path, 26) == state_arrays(workdir, 26)


def test_growth_shows_one_row_per_stage(run):
  _, workdir, _ = run
  newest = gan_jax.load(workdir)
  picture = np.asarray(newest.growth(n=6, seed=3))
  rows = picture.reshape(5, picture.shape[0] // 5, *picture.shape[1:])
  scale = rows.shape[1] // 16
  for row, step in zip(rows, ENDS, strict=True):
    images = gan_jax.load(workdir, step).sample(6, seed=3)
    expected = np.concatenate(list(images), axis=1)
    np.testing.assert_array_equal(row[::scale, ::scale], expected)
  assert len(np.unique(gan_jax.load(workdir, 2).sample(1)[0, :4, :4])) <= 3


@pytest.mark.slow
def test_iteration_at_1024_runs(capsys):
  """The networks of the paper in the last stage, with two images on a CPU."""
  config = get_config('progressive_celebahq')
  config.steps_per_dispatch = 1
  config.growth.at_1024.batch_size = 2
  images = np.random.default_rng(0).integers(0, 256, (2, 1024, 1024, 3), 'u1')
  source = in_memory({'images': images})
  start = time.perf_counter()
  game, schedule = games.make(config), make_schedule(config)
  tx = optimizers.make(config.optimizer.to_dict())
  first = schedule.segments[-1].first_step
  step = jax.jit(
    partial(train_dispatch, game, tx, partial(read, flip=True), None),
    donate_argnums=0,
  )
  batch = index_batch(Stream(0, 2), None, schedule, lambda n: slice(n), first)
  before = jax.jit(dispatch_timer.make_create_state(game, tx, config, source))()
  name = '1024x1024'
  kernel = lambda state: [
    np.asarray(player['params'][name]['conv_0']['kernel'])
    for player in state.variables
  ]
  old_kernels = kernel(before)
  after, metrics = step(
    before, source.fetch(np.arange(2)), batch, schedule.dispatch(first), ()
  )
  for old, new in zip(old_kernels, kernel(after), strict=True):
    assert np.isfinite(new).all()
    # Adam's first step has one length, except where a gradient is near its eps.
    assert np.isclose(abs(new - old), 1.5e-3, rtol=0.05).mean() > 0.99
  for name, value in metrics.items():
    assert np.isfinite(value).all(), name
  with capsys.disabled():
    print(f'{time.perf_counter() - start:.0f} s, compilation included')
