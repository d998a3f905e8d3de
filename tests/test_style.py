"""Tests of StyleGAN2: layers, networks, weights of the reference, and game.

GOLDEN is the output of tests/style_reference.py: the reference networks, in
PyTorch and float64, on weights that the name of each array determines.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from style_reference import (
  FEATURES,
  LAYERS,
  MOST,
  SPECS,
  N,
  W,
  data,
  number,
  weights,
)

import gan_jax
from gan_jax import data as data_sources
from gan_jax.data.order import Stream
from gan_jax.errors import UserError
from gan_jax.games.game import Context, Phase, main_output
from gan_jax.games.latents import LATENTS
from gan_jax.games.losses import non_saturating
from gan_jax.games.penalties import WeightedPenalty, path_length
from gan_jax.games.style import style_game
from gan_jax.models import style, style_discriminator
from gan_jax.models.style_layers import modulated_conv
from gan_jax.models.style_weights import from_reference, to_reference
from gan_jax.ops import fir
from gan_jax.pair import Pair

GOLDEN = {
  'skip_resnet': {
    'images': -1.1370210895804203,
    'no_noise': 5.719718173650811,
    'truncated': 0.6297460354292692,
    'logits': 0.07460798044033778,
    'lengths': 1.9565878451979972,
    'r1': 0.0031863221521402337,
    'gen_gradient': -0.011205273371147738,
    'disc_gradient': -0.6041589188257683,
    'path_gradient': 679.021501637022,
    'r1_gradient': 0.03464858979453378,
  },
  'orig_orig': {
    'images': 2.9206284920284107,
    'no_noise': 3.317871668595852,
    'truncated': 0.711605042437804,
    'logits': 0.017673978427961257,
    'lengths': -0.08883919286844866,
    'r1': 0.0020399252826201865,
    'gen_gradient': -0.016837667784870964,
    'disc_gradient': 0.30979337309982136,
    'path_gradient': 8.639915320729147,
    'r1_gradient': 0.024491109059391163,
  },
  'resnet_skip': {
    'images': -6.8230941347388185,
    'no_noise': 9.376334017413956,
    'truncated': 2.9306601603853877,
    'logits': -0.11817160480790667,
    'lengths': -3.146345719116628,
    'r1': 0.014890078216129995,
    'gen_gradient': -0.7041910684533028,
    'disc_gradient': -1.8729950961722963,
    'path_gradient': 1751.1678397268065,
    'r1_gradient': 0.16290089896310272,
  },
}

PHASE = Phase(0, 1, 4, None, Pair(0.0, 0.0), 0.0, 0, {})
NHWC, NCHW = (0, 2, 3, 1), (0, 3, 1, 2)


def test_upfirdn_by_hand():
  """[1, 2] up by 2, with the taps 1, 3, 3, 1: one row, one axis."""
  x = jnp.array([1.0, 2.0]).reshape(1, 1, 2, 1)
  y = fir._along(x, 2, (1.0, 3.0, 3.0, 1.0), 2, 1, (2, 1))
  # 0 0 1 0 2 0 0, four at a time: 3, 3 + 2, 1 + 6, 6.
  np.testing.assert_array_equal(y[0, 0, :, 0], [3, 5, 7, 6])
  y = fir._along(y, 2, (1.0, 3.0, 3.0, 1.0), 1, 2, (1, 1))
  # 0 3 5 7 6 0: 9 + 15 + 7, 5 + 21 + 18.
  np.testing.assert_array_equal(y[0, 0, :, 0], [31, 44])


def test_upfirdn_equals_its_definition():
  """Each axis: zeros inserted, padding, np.convolve, a stride."""
  rng = np.random.RandomState(0)
  x, taps = rng.standard_normal((5, 7)), (1.0, 2.0, 4.0)

  def expected(row):
    big = np.zeros(len(row) * up)
    big[::up] = row
    big = np.pad(big, np.maximum(padding, 0))[max(-padding[0], 0) :]
    return np.convolve(big, np.array(taps) / 7, 'valid')[::down]

  for up, down, padding in ((1, 1, (2, 0)), (3, 1, (1, 2)), (2, 3, (-1, 3))):
    found = fir.upfirdn(
      jnp.float32(x)[None, ..., None],
      taps,
      up=up,
      down=down,
      padding=padding,
    )
    rows = np.apply_along_axis(expected, 1, x)
    reference = np.apply_along_axis(expected, 0, rows)
    np.testing.assert_allclose(found[0, ..., 0], reference, atol=1e-6)


def networks(key):
  gen, disc, side, channels, _, clamp, stddev = SPECS[key]
  width = {
    'resolution': side,
    'channels': channels,
    'features': FEATURES,
    'most_features': MOST,
    'clamp': clamp,
  }
  return (
    style.Generator(
      **width, architecture=gen, w_dim=W, mapping_layers=LAYERS, mixing=0.0
    ),
    style_discriminator.Discriminator(
      **width, architecture=disc, group=N, stddev_channels=stddev
    ),
  )


def reference_weights(network, first, labels):
  """Returns the reference's arrays of a network, by its names."""
  key = jax.random.key(0)
  shapes = jax.eval_shape(
    lambda: network.init(
      key,
      jnp.asarray(first),
      key[None],
      False,
      None if labels is None else jnp.asarray(labels),
    )
  )
  zeros = jax.tree.map(lambda x: np.zeros(x.shape), shapes)
  return weights({k: v.shape for k, v in to_reference(zeros).items()})


def networks_and_data(key):
  """Returns both networks, their variables, and the data, in float64."""
  g, d = networks(key)
  z, labels, real, y = data(SPECS[key])
  one = None if labels is None else labels[:1]
  arrays = (
    reference_weights(g, z[:1], one),
    reference_weights(d, real[:1].transpose(NHWC), one),
  )
  found = tuple(map(from_reference, arrays))
  variables = [jax.tree.map(jnp.asarray, x.variables) for x in found]
  arrays = z, labels, real.transpose(NHWC), y.transpose(NHWC)
  arrays = [None if x is None else jnp.asarray(x) for x in arrays]
  return g, d, variables, arrays


@pytest.mark.parametrize(
  'key',
  [
    'skip_resnet',
    pytest.param('orig_orig', marks=pytest.mark.slow),
    pytest.param('resnet_skip', marks=pytest.mark.slow),
  ],
)
def test_networks_equal_the_reference_in_float64(key):
  """Images, logits, R1, path lengths and all gradients: to 1e-10."""
  with jax.enable_x64(True):
    g, d, (gen_vars, disc_vars), (z, labels, real, y) = networks_and_data(key)
    keys = jax.random.split(jax.random.key(0), N)
    discriminate = lambda params, x: d.apply(
      {'params': params}, x, keys, True, labels
    )
    softplus = jax.nn.softplus

    def map_z(v):
      return g.apply(v, z, keys, False, labels, method='map')

    def synthesize(v, ws, noise='constant'):
      return g.apply(v, ws, keys, noise, method='synthesize')

    def gen_loss(params):
      v = {**gen_vars, 'params': params}
      images = synthesize(v, map_z(v))
      logits = discriminate(disc_vars['params'], images)
      return jnp.mean(softplus(-logits)), (images, logits)

    def path(params):
      v = {**gen_vars, 'params': params}
      _, vjp = jax.vjp(lambda ws: synthesize(v, ws), map_z(v))
      squares = jnp.sum(jnp.square(vjp(y)[0]), axis=-1)
      lengths = jnp.sqrt(jnp.mean(squares, axis=-1))
      return jnp.mean((lengths - 0.5) ** 2), lengths

    def r1(params):
      gradients = jax.grad(lambda x: jnp.sum(discriminate(params, x)))(real)
      return jnp.mean(jnp.sum(gradients**2, (1, 2, 3))) / 2

    @jax.jit
    def compute():
      gradient, (images, logits) = jax.grad(gen_loss, has_aux=True)(
        gen_vars['params']
      )
      path_gradient, lengths = jax.grad(path, has_aux=True)(gen_vars['params'])
      r1_value, r1_gradient = jax.value_and_grad(r1)(disc_vars['params'])
      disc_loss = lambda params: jnp.mean(softplus(-discriminate(params, real)))
      ws = map_z(gen_vars)
      return {
        'images': {'images': images.transpose(NCHW)},
        'no_noise': {
          'images': synthesize(gen_vars, ws, 'none').transpose(NCHW)
        },
        'truncated': {
          'ws': style.truncate(gen_vars['averages']['w_avg'], ws, 0.6, 3)
        },
        'logits': {'logits': logits},
        'lengths': {'lengths': lengths},
        'r1': r1_value,
        'gen_gradient': gradient,
        'disc_gradient': jax.grad(disc_loss)(disc_vars['params']),
        'path_gradient': path_gradient,
        'r1_gradient': r1_gradient,
      }

    found = jax.tree.map(np.asarray, compute())
  golden = GOLDEN[key]
  assert float(found.pop('r1')) == pytest.approx(golden['r1'], rel=1e-10)
  for name, arrays in found.items():
    if name.endswith('gradient'):
      arrays = to_reference({'params': arrays})
    expected = pytest.approx(golden[name], rel=1e-10, abs=1e-11)
    assert number(arrays) == expected, name


@pytest.mark.slow
def test_networks_equal_the_reference_in_float32():
  """Images and logits, for the case with most kinds of layers: to 1e-4."""
  key = 'skip_resnet'
  g, d, (gen_vars, disc_vars), (z, labels, *_) = networks_and_data(key)
  keys = jax.random.split(jax.random.key(0), N)
  ws = g.apply(gen_vars, z, keys, False, labels, method='map')
  images = g.apply(gen_vars, ws, keys, 'constant', method='synthesize')
  logits = d.apply(disc_vars, images, keys, True, labels)
  golden = GOLDEN[key]
  images = {'images': np.asarray(images).transpose(NCHW)}
  assert number(images) == pytest.approx(golden['images'], abs=1e-4)
  logits = {'logits': np.asarray(logits)}
  assert number(logits) == pytest.approx(golden['logits'], rel=1e-4)


@pytest.mark.parametrize('player', [0, 1])
def test_weights_survive_a_round_trip(player):
  """Bit for bit, and the sizes are inferred."""
  key = 'resnet_skip'
  z, _, real, _ = data(SPECS[key])
  network = networks(key)[player]
  first = (z[:1], real[:1].transpose(NHWC))[player]
  arrays = reference_weights(network, first, None)
  found = from_reference(arrays)
  arrays_again = to_reference(found.variables)
  assert arrays_again.keys() == arrays.keys()
  assert all((arrays_again[name] == arrays[name]).all() for name in arrays)
  assert (found.resolution, found.channels, found.classes) == (16, 3, 0)
  block = dict(found.block)
  assert block.pop('name') == 'style'
  assert all(getattr(network, k) == v for k, v in block.items())


def test_weights_of_another_network_raise():
  _, d = networks('orig_orig')
  real = data(SPECS['orig_orig'])[2]
  arrays = reference_weights(d, real[:1].transpose(NHWC), None)
  with pytest.raises(UserError, match='not those of a StyleGAN2'):
    from_reference({'conv.weight': np.zeros((3, 3))})
  with pytest.raises(UserError, match=r"have 'b4\.fc\.spectral'"):
    from_reference({**arrays, 'b4.fc.spectral': np.zeros(3)})
  with pytest.raises(UserError, match='do not fit a StyleGAN2'):
    from_reference({**arrays, 'b4.out.bias': np.zeros(2)})
  filters = {'b8.resample_filter': np.full((4, 4), 1 / 16)}
  with pytest.raises(UserError, match='another low-pass filter'):
    from_reference({**arrays, **filters})


# Counted by the reference code: features, resolution, classes, mapping layers;
# parameters of G and D.
COUNTS = [
  (16384, 256, 0, 8, 24_767_458, 24_001_089),
  (32768, 512, 0, 8, 30_276_583, 28_982_849),
  (32768, 1024, 0, 8, 30_370_060, 29_012_513),
  (32768, 32, 10, 2, 20_215_315, 23_089_664),
]


@pytest.mark.parametrize('features, side, classes, layers, gen, disc', COUNTS)
def test_parameter_counts_equal_the_reference(
  features, side, classes, layers, gen, disc
):
  key = jax.random.key(0)
  labels = jnp.zeros((1, classes)) if classes else None
  g = style.Generator(side, 3, features, mapping_layers=layers)
  d = style_discriminator.Discriminator(
    side, 3, features, architecture='orig' if side == 32 else 'resnet'
  )
  images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
  count = lambda network, first: sum(
    x.size
    for x in jax.tree.leaves(
      jax.eval_shape(
        lambda x: network.init(key, x, key[None], False, labels), first
      )['params']
    )
  )
  assert count(g, jnp.zeros((1, 512))) == gen
  assert count(d, images) == disc
  assert g.layers == 2 * (side.bit_length() - 2)


@pytest.mark.parametrize('resample', [None, 'up'])
def test_fused_and_unfused_modulated_convolutions_agree(resample):
  rng = np.random.RandomState(1)
  x, w, s = (
    jnp.asarray(rng.standard_normal(shape), jnp.float32)
    for shape in ((2, 4, 4, 3), (3, 3, 3, 5), (2, 3))
  )
  found = [
    modulated_conv(x, w, s, resample=resample, fused=fused)
    for fused in (False, True)
  ]
  np.testing.assert_allclose(*found, atol=1e-5)
  if resample is None:  # a demodulated filter has norm 1: the centre tap
    dot = jnp.zeros((1, 3, 3, 3)).at[0, 1, 1].set(x[0, 1, 1])
    y = modulated_conv(dot, w[1:2, 1:2], s[:1])
    modulated = s[0][:, None] * w[1, 1]
    expected = x[0, 1, 1] @ (
      modulated / jnp.linalg.norm(modulated, axis=0, keepdims=True)
    )
    np.testing.assert_allclose(y[0, 1, 1], expected, rtol=1e-4)


def test_unsupported_sizes_raise():
  for side in (4, 20, 2048):
    with pytest.raises(UserError, match=f'not {side}: set config.data.res'):
      style.resolutions(side)
  with pytest.raises(UserError, match='gives no feature map'):
    style.Generator(64, 3, features=32).check()
  with pytest.raises(UserError, match='stddev_channels=3 must divide'):
    style_discriminator.Discriminator(
      8, 3, features=32, stddev_channels=3
    ).check()


def make_game(**more):
  g = style.Generator(
    8, 1, features=32, most_features=4, w_dim=4, mapping_layers=1, **more
  )
  d = style_discriminator.Discriminator(8, 1, features=32, most_features=4)
  penalty = WeightedPenalty('path_length', path_length(0.01, 2), 2.0, 4)
  game = style_game(
    g,
    d,
    loss=non_saturating(),
    latent=LATENTS['gaussian'],
    latent_dim=3,
    gen_penalties=[penalty],
  )
  batch = {'images': jnp.zeros((4, 8, 8, 1)), 'example': jnp.arange(4)}
  variables, state = jax.jit(game.init)(jax.random.key(0), batch)
  keys = jax.random.split(jax.random.key(1), 4)
  return (
    game,
    g,
    variables,
    state,
    game.sample_inputs(keys, batch, PHASE),
    batch,
  )


def test_w_average_and_truncation_by_hand():
  """avg + .005 (mean - avg); psi 0 is the average, 1 is all of w."""
  game, _, variables, _, inputs, _ = make_game(mixing=0.0)
  assert game.ema_copies == ('averages', 'noise')
  gen_vars = variables.gen
  ws = game.style.map(gen_vars, inputs)
  new = game.generate(gen_vars, inputs, PHASE)[1]['averages']['w_avg']
  np.testing.assert_allclose(new, 0.005 * ws[:, 0].mean(0), rtol=1e-5)
  gen_vars = {**gen_vars, 'averages': {'w_avg': 10 * new}}
  truncated = lambda psi: game.style.map(gen_vars, game.truncate(inputs, psi))
  np.testing.assert_allclose(truncated(0)[2, 1], 10 * new, rtol=1e-6)
  np.testing.assert_allclose(truncated(1.0), ws, rtol=1e-6)
  half = game.style.truncate(gen_vars, ws, 0.5, 1)
  np.testing.assert_allclose(
    half[:, 0], (ws[:, 0] + 10 * new[None]) / 2, rtol=1e-5
  )
  np.testing.assert_array_equal(half[:, 1:], ws[:, 1:])
  with pytest.raises(UserError, match='truncation=nan must be a number'):
    game.truncate(inputs, float('nan'))


def test_small_set_repeats_images_and_classes_need_labels(tmp_path):
  """A batch may be larger than the set."""
  for shade in (0, 100, 200):
    Image.new('RGB', (8, 8), (shade,) * 3).save(tmp_path / f'{shade}.png')
  config = gan_jax.experiment('experiments/stylegan2.py:tiny')
  config.data.source = f'folder:{tmp_path}'
  assert config.batch_size == 8
  source = data_sources.make(config)
  assert source.size == 3
  counts = np.bincount(Stream(0, 3).indices(np.arange(8)))
  assert sorted(counts) == [2, 3, 3]
  with config.unlocked():
    config.data.classes = 2
  with pytest.raises(UserError, match=r'classes=2, but .* has no labels'):
    data_sources.make(config)


def test_style_mixing_switches_w_at_a_random_layer():
  """With probability 0.9; it depends only on the key of the example."""
  g = style.Generator(
    8, 1, features=32, most_features=4, w_dim=4, mapping_layers=1
  )
  n = 2000
  keys = jax.random.split(jax.random.key(3), n)
  z = jax.random.normal(jax.random.key(4), (n, 3))
  variables = g.init(jax.random.key(0), z[:2], keys[:2], False)
  unmixed = g.apply(variables, z, keys, False, method='map')
  mixed, _ = g.apply(
    variables, z, keys, True, method='map', mutable=['averages']
  )
  same = np.asarray((unmixed == mixed).all(-1))
  firsts = same.sum(1)  # the first layers keep their w
  assert (same == (np.arange(4) < firsts[:, None])).all()
  counts = np.bincount(firsts, minlength=5)
  assert counts[0] == 0
  np.testing.assert_allclose(counts[1:] / n, [0.3, 0.3, 0.3, 0.1], atol=0.04)
  single, _ = g.apply(
    variables, z[5:6], keys[5:6], True, method='map', mutable=['averages']
  )
  np.testing.assert_allclose(single, mixed[5:6], rtol=1e-5)


def test_noise_differs_by_example_and_by_layer():
  """The same key gives the same noise. The strength is a parameter."""
  _, g, variables, _, _, _ = make_game()
  gen_vars = variables.gen
  with_unit_strength = lambda x: {
    k: jnp.ones(()) if k == 'noise_strength' else v for k, v in x.items()
  }
  deep = lambda tree: (
    with_unit_strength({k: deep(v) if isinstance(v, dict) else v
               for k, v in tree.items()})
  )  # fmt: skip
  gen_vars = {**gen_vars, 'params': deep(gen_vars['params'])}
  ws = jnp.ones((2, 4, 4))
  keys = jax.random.split(jax.random.key(0), 2)
  synthesize = lambda keys, noise: np.asarray(
    g.apply(gen_vars, ws, keys, noise, method='synthesize')
  )
  random = synthesize(keys, 'random')
  assert np.abs(random[0] - random[1]).max() > 0.01
  np.testing.assert_allclose(
    synthesize(keys[::-1], 'random'), random[::-1], atol=1e-5
  )
  for noise in ('constant', 'none'):
    fixed = synthesize(keys, noise)
    np.testing.assert_allclose(fixed[0], fixed[1], atol=1e-6)
    assert np.abs(fixed - random).max() > 0.01


def test_bfloat16_is_used_at_the_highest_resolutions():
  g = style.Generator(64, 3, features=256, lowprec=2, dtype=jnp.bfloat16)
  found = [g.dtype_of(side, jnp.float32) for side in style.resolutions(64)]
  assert found == [jnp.float32] * 3 + [jnp.bfloat16] * 2
  _, g, variables, *_ = make_game(dtype=jnp.bfloat16)
  keys = jax.random.split(jax.random.key(0), 2)
  z = jnp.ones((2, 3))
  images = g.apply(variables.gen, z, keys, False)
  assert images.dtype == jnp.float32


def test_path_length_penalty_by_hand():
  """It takes two of four examples; the running mean moves by .01 of their
  lengths.
  """
  game, _, variables, state, inputs, batch = make_game(mixing=0.0)
  (_, lazy) = game.updates.gen
  assert lazy.every == 4
  context = Context(variables, inputs, state, ())
  keys = jax.random.split(jax.random.key(5), 4)
  loss, aux = lazy.loss(
    variables.gen['params'], context, batch, None, keys, PHASE
  )
  mean = float(aux.game_state['path_length'])
  assert mean > 0
  # E (l - a)^2 = Var l + (E l - a)^2, with a = .01 E l.
  assert float(loss) >= 2 * (0.99 * 100 * mean) ** 2 * (1 - 1e-5)
  odd = context._replace(inputs=jax.tree.map(lambda x: x[:3], inputs))
  with pytest.raises(UserError, match='batch_shrink=2 of path_length'):
    lazy.loss(variables.gen['params'], odd, batch, None, keys[:3], PHASE)


def test_samples_of_ws_equal_those_of_z():
  """Inputs may contain `ws` in place of z."""
  game, _, variables, _, inputs, _ = make_game()
  sample = main_output(game).sample
  ws = game.style.map(variables.gen, inputs)
  ws_inputs = {'ws': ws, 'keys': inputs['keys']}
  np.testing.assert_array_equal(
    sample(variables.gen, ws_inputs, PHASE),
    sample(variables.gen, inputs, PHASE),
  )
