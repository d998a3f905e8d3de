"""Progressive growing: networks, game and runs, against the paper."""

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
from runs import everything, get_config, metrics

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
  """Weights N(0, 1) in the tree; used, divided by sqrt(inputs / 2)."""
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
  at = padded[:, 2:5, 1:4]  # around the pixel (2, 1)
  expected = np.einsum('nijc,ijcd->nd', at, params['kernel']) / math.sqrt(9 * 4)
  made = conv.apply({'params': params}, images)
  np.testing.assert_allclose(made[:, 2, 1], expected, rtol=1e-4, atol=1e-5)


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
  """The largest group, to `group`, that divides the batch."""
  x = DRAW(n, 2, 3, 5)
  out = np.asarray(minibatch_stddev(x, group, None))
  np.testing.assert_array_equal(out[..., :5], x)
  for first in range(0, n, size):
    group = np.asarray(x[first : first + size], np.float64)
    expected = np.sqrt(group.var(0) + 1e-8).mean()
    told = out[first : first + size, ..., 5]
    np.testing.assert_allclose(told, expected, rtol=1e-5)


@pytest.mark.parametrize('n', [4, 6, 8])
def test_minibatch_stddev_is_the_same_on_two_devices(n):
  """Also of groups that lie on both; and so are its gradients."""
  x, weights = DRAW(n, 2, 2, 3), DRAW(n, 2, 2, 4) ** 2

  def loss(x, weights, axis_name):
    return jnp.sum(minibatch_stddev(x, 4, axis_name) ** 2 * weights)

  two = lambda x: x.reshape(2, n // 2, *x.shape[1:])
  several = jax.pmap(
    lambda x, w: jax.value_and_grad(loss)(x, w, 'd'), axis_name='d'
  )
  value, slope = several(two(x), two(weights))
  expected = jax.value_and_grad(loss)(x, weights, None)
  np.testing.assert_allclose(value.sum(), expected[0], rtol=1e-5)
  np.testing.assert_allclose(slope.reshape(x.shape), expected[1], rtol=1e-4)


# -- Networks --


def test_parameters_at_1024():
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
  # Of each convolution and dense layer the weights, and a bias a channel.
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
    # Where the deviation over the minibatch comes in, at 4x4.
    assert kernel.shape == (3, 3, width + (level == 0), width)


@pytest.fixture(scope='module')
def players():
  """Both networks to 16x16, with biases that are not 0."""
  gen = progressive.Generator(3, **SMALL)
  disc = progressive.Discriminator(**SMALL)
  z, images = DRAW(N, LATENT), DRAW(N, RESOLUTION, RESOLUTION, 3)
  last = {'train': False, 'stage': 4}
  make = lambda: (
    gen.init(jax.random.key(1), z, KEYS, **last),
    disc.init(jax.random.key(2), images, KEYS, **last),
  )
  variables = jax.jit(make)()
  variables = jax.tree.map(lambda x: x + 0.1, variables)
  make = partial(gen.apply, variables[0], z, KEYS, True)
  judge = lambda images, **how: disc.apply(
    variables[1], images, KEYS, True, **how
  )
  return make, judge


def halved(images):
  n, h, w, c = images.shape
  return np.asarray(images).reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4))


def doubled(images):
  return np.asarray(images).repeat(2, 1).repeat(2, 2)


@pytest.mark.parametrize('stage', [1, 3])
def test_a_level_fades_in_from_the_one_below(players, stage):
  """At alpha 0 both players are what they were, at 1 what they will be."""
  make, judge = players
  close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
  below, here = make(stage=stage - 1), make(stage=stage + 1)
  close(make(stage=stage, alpha=0.0), doubled(below))
  close(make(stage=stage, alpha=1.0), here)
  between = make(stage=stage, alpha=0.25)
  close(between, 0.75 * doubled(below) + 0.25 * here)
  side = 4 * 2 ** ((stage + 1) // 2)
  assert here.shape == (N, side, side, 3)

  images = DRAW(N, side, side, 3)
  before = judge(jnp.asarray(halved(images)), stage=stage - 1)
  after = judge(images, stage=stage + 1)
  close(judge(images, stage=stage, alpha=0.0), before)
  close(judge(images, stage=stage, alpha=1.0), after)
  assert abs(np.asarray(after - before)).max() > 0.01


def test_what_is_in_play():
  names = [
    f'{side}x{side}{rgb}' for side in (4, 8, 16) for rgb in ('', '_to_rgb')
  ]
  of = lambda stage: [name for name in names if is_used(name, stage)]
  assert of(0) == ['4x4', '4x4_to_rgb']
  assert of(1) == ['4x4', '4x4_to_rgb', '8x8', '8x8_to_rgb']
  assert of(2) == ['4x4', '8x8', '8x8_to_rgb']
  assert of(3) == ['4x4', '8x8', '8x8_to_rgb', '16x16', '16x16_to_rgb']
  assert of(4) == ['4x4', '8x8', '16x16', '16x16_to_rgb']


@functools.cache
def compute(**fields):
  """Images, logits, and the gradient of these for G, while 8x8 fades in."""
  gen = progressive.Generator(3, **SMALL, **fields)
  disc = progressive.Discriminator(**SMALL, **fields)
  z, made = DRAW(N, LATENT), {'train': True, 'stage': 2}
  images = jnp.zeros((N, 8, 8, 3))
  last = {'train': True, 'stage': 1, 'alpha': 0.5}

  def everything():
    gen_vars = gen.init(jax.random.key(1), z, KEYS, **made)
    disc_vars = disc.init(jax.random.key(2), images, KEYS, **made)

    def score(gen_vars):
      images = gen.apply(gen_vars, z, KEYS, **last)
      logits = disc.apply(disc_vars, images, KEYS, **last)
      return jnp.sum(logits**2), (images, logits)

    slope, fakes = jax.grad(score, has_aux=True)(gen_vars)
    return fakes, slope, (gen_vars, disc_vars)

  return jax.jit(everything)()


def test_blocks_that_are_computed_again_make_no_difference():
  plain, again = compute(), compute(remat=True)
  for x, y in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5)


def test_bfloat16_has_the_gradients_of_float32():
  """Of each array, biases too, where their sums are long: 32x32, 16 images."""
  n, keys = 16, jax.random.split(jax.random.key(0), 16)
  z, images = DRAW(n, LATENT), DRAW(n, 32, 32, 3) ** 2
  last = {'train': True, 'stage': 6}

  def slopes(dtype):
    gen = progressive.Generator(3, 512, 16, dtype=dtype)
    disc = progressive.Discriminator(512, 16, dtype=dtype)
    gen_vars = gen.init(jax.random.key(1), z, keys, **last)
    disc_vars = disc.init(jax.random.key(2), images, keys, **last)

    def made(gen_vars):
      return jnp.sum(gen.apply(gen_vars, z, keys, **last) * images)

    def score(disc_vars):
      return jnp.sum(disc.apply(disc_vars, images, keys, **last))

    return jax.grad(made)(gen_vars), jax.grad(score)(disc_vars)

  exact, near = (
    jax.jit(partial(slopes, dtype))() for dtype in (jnp.float32, jnp.bfloat16)
  )
  for x, y in zip(jax.tree.leaves(exact), jax.tree.leaves(near), strict=True):
    # (Biases whose sums were of bfloat16 too were 60% wrong, and more.)
    assert np.linalg.norm(x - y) <= 0.2 * np.linalg.norm(x), x.shape


def test_bfloat16_computes_so_and_keeps_float32():
  (*exact, _, _), (*near, _, variables) = compute(), compute(dtype=jnp.bfloat16)
  assert {x.dtype for x in jax.tree.leaves(variables)} == {np.dtype('float32')}
  for x, y in zip(jax.tree.leaves(exact), jax.tree.leaves(near), strict=True):
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


def table_of(config, *segments):
  config.schedule, config.total_images = segments, 320
  return make_schedule(config)


def test_reals_fade_too():
  """D sees reals of the stage's resolution, as if the level below made them."""
  seen = {}

  class Spy(progressive.Discriminator):
    @nn.compact
    def __call__(self, images, keys, train, stage, alpha=1.0):
      seen.setdefault(stage, images)
      return images.mean((1, 2, 3)) * self.param('w', lambda key: jnp.ones(()))

  game = small_game()
  spying = progressive_game(
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
  variables, _ = game.init(jax.random.key(0), batch)
  disc_vars = {'params': {'w': jnp.ones(())}}
  variables = variables._replace(disc=disc_vars)
  segments = (
    {'stage': 4, 'images': 8},
    {'stage': 3, 'images': 64, 'values': {'alpha': ('linear', 0.25, 0.25)}},
    {'stage': 0},
  )
  table = table_of(config, *segments)
  view = games.Context(variables, {}, (), ())
  for row in table.segments:
    phase = table.phase(row.first_step)
    inputs = game.sample_inputs(KEYS, {}, phase)
    fakes, _ = game.generate(variables.gen, inputs, phase)
    loss = spying.updates.disc[0].loss
    small = {**batch, 'images': average_pool(images, game.downsample(phase))}
    loss(disc_vars['params'], view, small, fakes, KEYS, phase)
  close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
  close(seen[4], images)
  close(seen[3], 0.75 * doubled(halved(images)) + 0.25 * np.asarray(images))
  close(seen[0], halved(halved(images)))


def test_samples_are_of_the_resolution_of_the_data():
  """At any stage: each pixel a square."""
  game, config = small_game(), get_config('progressive_celebahq', 'tiny')
  batch = {'images': jnp.zeros((N, RESOLUTION, RESOLUTION, 3))}
  variables, _ = game.init(jax.random.key(0), batch)
  phase = table_of(config, {'stage': 2}).phase(0)
  inputs = game.sample_inputs(KEYS, {}, phase)
  fakes, _ = game.generate(variables.gen, inputs, phase)
  assert fakes.shape == (N, 8, 8, 3)
  np.testing.assert_array_equal(
    main_output(game).sample(variables.gen, inputs, phase), doubled(fakes)
  )


def sizes(config, batch):
  """Of what G makes in each row of the config's schedule."""
  init = games.make(config).init
  variables, _ = jax.eval_shape(init, jax.random.key(0), batch)
  return sizes_of(config, make_schedule(config), variables.gen, batch)


def test_a_stage_that_there_is_not(tmp_path):
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


def test_batches_of_the_paper():
  """G's own are as large as D's; D's groups are whole batches of the paper,
  and of 4 in the later implementation.
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


def test_lengths_that_the_schedule_calls_by_their_key():
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
  made = sizes(config, batch)
  assert made == ['4x4', '8x8', '8x8', '16x16']
  drawn = describe_schedule(make_schedule(config), made, {})
  cells = drawn.splitlines()[2].split()
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


def layers_on_paper(config, stage):
  """Multiplications of each layer of G and D for one image, first to last.

  D's in four parts: from RGB; the blocks; behind the minibatch's deviation,
  but for the last; the last.
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
def test_no_work_is_done_above_the_stage_or_twice(stage):
  """WGAN-GP, one step of D, and then one of G on fakes of its own.

  A layer takes as many multiplications for its weights' gradient, and for its
  input's, as forward. G's first has none for z, D's first none for the images,
  but in the penalty, which is the gradient for the images. That is
  differentiated again: each of its products in both of its factors, but for the
  last layer's, where it begins with ones; and, since the minibatch's deviation
  is not linear, the layers before it once more.
  """
  config = get_config('progressive_celebahq', 'tiny')
  gen, first, (rgb, blocks, end, last) = layers_on_paper(config, stage)
  disc = sum(rgb) + sum(blocks) + sum(end) + sum(last)
  reals_and_fakes = 2 * (disc + disc + disc - sum(rgb))
  penalty = disc - sum(last) + disc  # the gradient for the images
  penalty += disc + disc - sum(last)  # that, differentiated
  penalty += sum(rgb) + sum(blocks) + sum(blocks)
  gen_move = sum(gen) + 2 * disc + sum(gen) + sum(gen) - first
  for_disc = sum(gen)  # G's fakes for D
  paper = for_disc + reals_and_fakes + penalty + gen_move
  table, source = make_schedule(config), dispatch_timer.generated_source(config)
  row = table.segments[stage]
  assert row.segment.stage == stage
  counted = dispatch_timer.flops_per_dispatch(config, source, row.first_step)
  assert counted / row.segment.batch_size == 2 * paper


# -- Whole runs --


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A `:tiny` run, and how often its iteration was compiled."""
  compiled = []

  def heard(event, seconds, **about):
    if event.endswith('backend_compile_duration'):
      compiled.append(about.get('fun_name'))

  workdir = tmp_path_factory.mktemp('progressive')
  config = get_config('progressive_celebahq', 'tiny')
  jax.clear_caches()
  jax.monitoring.register_event_duration_secs_listener(heard)
  try:
    loop.train(config, workdir)
  finally:
    jax.monitoring.unregister_event_duration_listener(heard)
  return config, workdir, compiled


# The last iterations of the stages: 2 of 32 images, 4 and 4 of 16, 8 and 8 of
# 8.
ENDS = [2, 6, 10, 18, 26]


def test_one_compilation_a_stage(run):
  _, _, compiled = run
  assert sum('train_dispatch' in name for name in compiled) == 5


def test_the_last_checkpoint_of_each_stage_is_kept(run):
  _, workdir, _ = run
  assert set(ENDS) <= set(checkpoint.steps(workdir))
  shapes = [
    {k: len(v) for k, v in everything(workdir, step).items()} for step in ENDS
  ]
  assert all(shape == shapes[0] for shape in shapes)


def test_lines_say_the_stage_and_how_far_it_has_faded_in(run):
  """4x4; 8x8 fading in, in 4 iterations, and stable; 16x16 likewise, in 8."""
  _, workdir, _ = run
  lines = {line['step']: line for line in metrics(workdir)}
  for stage, end in enumerate(ENDS):
    line = lines[end]
    side = {0: 4, 1: 8, 2: 8, 3: 16, 4: 16}[stage]
    told = line['schedule/stage'], line['schedule/resolution']
    assert told == (stage, side)
    steps = {1: 4, 3: 8}.get(stage)  # its last one is short of 1 by one
    alpha = steps and pytest.approx((steps - 1) / steps)
    assert line.get('schedule/alpha') == alpha


def in_stage(name, stage):
  """Whether an array of the state belongs to what is in play."""
  module = next(
    (part for part in name.replace("'", '|').split('|') if 'x' in part
     and part[0].isdigit()), None
  )  # fmt: skip
  return None if module is None else is_used(module, stage)


def test_what_is_not_in_play_is_left_alone(run):
  """To the bit: parameters and G's average; Adam's moments are 0."""
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
  ] + [everything(workdir, step) for step in ENDS]  # fmt: skip
  moved = still = 0
  for stage, (before, after) in enumerate(itertools.pairwise(states)):
    for name, value in after.items():
      playing = in_stage(name, stage)
      if playing is None or name not in before:
        continue
      if 'opt_state' in name:
        assert any(value) == playing, (stage, name)
      elif playing:
        moved += value != before[name]
      else:
        assert value == before[name], (stage, name)
        still += 1
  assert moved > 100
  assert still > 50


@pytest.mark.slow
@pytest.mark.parametrize('images', [96, 216])
def test_stopped_while_a_level_fades_in(run, images, tmp_path):
  """And prolonged: bit for bit the straight run; read in the meantime."""
  config, workdir, _ = run
  short = cfg.changed(config, 'total_images', images)
  loop.train(short, tmp_path)
  middle = gan_jax.load(tmp_path)
  assert middle.sample(3).shape == (3, 16, 16, 3)
  phase = make_schedule(config).phase(middle.step)
  assert 0 < phase.values['alpha'] < 1
  loop.train(config, tmp_path)
  assert everything(tmp_path, 26) == everything(workdir, 26)


def test_growth_is_a_row_of_each_stage(run):
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
def test_a_step_at_1024(capsys):
  """The networks of the paper, in the last stage; on a CPU, two images."""
  config = get_config('progressive_celebahq')
  config.steps_per_dispatch = 1
  config.growth.at_1024.batch_size = 2
  images = np.random.default_rng(0).integers(0, 256, (2, 1024, 1024, 3), 'u1')
  source = in_memory({'images': images})
  start = time.perf_counter()
  game, table = games.make(config), make_schedule(config)
  tx = optimizers.make(config.optimizer.to_dict())
  first = table.segments[-1].first_step
  step = jax.jit(
    partial(train_dispatch, game, tx, partial(read, flip=True), None),
    donate_argnums=0,
  )
  fed = index_batch(Stream(0, 2), None, table, lambda n: slice(n), first)
  before = jax.jit(dispatch_timer.make_create_state(game, tx, config, source))()
  name = '1024x1024'
  kernel = lambda state: [
    np.asarray(player['params'][name]['conv_0']['kernel'])
    for player in state.variables
  ]
  were = kernel(before)
  after, metrics = step(
    before, source.fetch(np.arange(2)), fed, table.dispatch(first), ()
  )
  for old, new in zip(were, kernel(after), strict=True):
    assert np.isfinite(new).all()
    # Adam's first step is of one length, but where a gradient is near its eps.
    assert np.isclose(abs(new - old), 1.5e-3, rtol=0.05).mean() > 0.99
  for name, value in metrics.items():
    assert np.isfinite(value).all(), name
  with capsys.disabled():
    print(f'{time.perf_counter() - start:.0f} s, compilation included')
