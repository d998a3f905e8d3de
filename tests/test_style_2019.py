"""Tests of StyleGAN (2019): synthesis by hand, parameter count, and a run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gan_jax
from gan_jax.errors import UserError
from gan_jax.models import style_2019


def adain_by_hand(x, scale, shift):
  """Normalizes each map by its own mean and standard deviation."""
  y = np.zeros_like(x)
  for i in range(x.shape[0]):
    for c in range(x.shape[3]):
      maps = x[i, :, :, c]
      std = np.sqrt(maps.var() + 1e-8)
      y[i, :, :, c] = (maps - maps.mean()) / std * (1 + scale[i, c])
      y[i, :, :, c] += shift[i, c]
  return y


def conv_by_hand(x, w):
  """Returns a 3x3 cross-correlation with zero padding."""
  padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  y = np.zeros((*x.shape[:3], w.shape[3]))
  for i in range(x.shape[1]):
    for j in range(x.shape[2]):
      patch = padded[:, i : i + 3, j : j + 3]
      y[:, i, j] = np.tensordot(patch, w, 3)
  return y


def blur_by_hand(x):
  taps = np.outer([1, 2, 1], [1, 2, 1]) / 16
  diagonal = taps[:, :, None, None] * np.eye(x.shape[3])
  return conv_by_hand(x, diagonal)


def synthesis_by_hand(params, noise, ws):
  """Returns 8x8 images: figure 1b with the constants of the authors' code."""

  def epilogue(x, name, side, w):
    p = params[f'b{side}'][name]
    constant = noise[f'b{side}'][name]['constant']
    x = x + constant[None, :, :, None] * p['noise_strength'] + p['bias']
    x = np.where(x > 0, x, 0.2 * x)
    kernel = p['affine']['kernel']
    styles = w @ kernel / np.sqrt(len(kernel)) + p['affine']['bias']
    half = x.shape[3]
    return adain_by_hand(x, styles[:, :half], styles[:, half:])

  def conv(x, kernel):
    return conv_by_hand(x, kernel * np.sqrt(2 / (9 * x.shape[3])))

  x = np.repeat(params['b4']['const'][None], len(ws), 0)
  x = epilogue(x, 'layer0', 4, ws[:, 0])
  x = epilogue(conv(x, params['b4']['kernel1']), 'layer1', 4, ws[:, 1])
  x = x.repeat(2, 1).repeat(2, 2)
  x = blur_by_hand(conv(x, params['b8']['kernel0']))
  x = epilogue(x, 'layer0', 8, ws[:, 2])
  x = epilogue(conv(x, params['b8']['kernel1']), 'layer1', 8, ws[:, 3])
  rgb = params['to_rgb']
  return x @ rgb['kernel'][0, 0] / np.sqrt(x.shape[3]) + rgb['bias']


def test_adain_by_hand():
  """Two pixels, 1 and 3: mean 2, standard deviation 1."""
  x = jnp.array([1.0, 3.0]).reshape(1, 1, 2, 1)
  y = style_2019.adain(x, jnp.full((1, 1), 0.5), jnp.full((1, 1), 10.0))
  np.testing.assert_allclose(y[0, 0, :, 0], [8.5, 11.5], rtol=1e-6)


def test_synthesis_by_hand_in_float64():
  rng = np.random.RandomState(0)
  gen = style_2019.Generator(8, 3, 5, features=24, most_features=4)
  with jax.enable_x64(True):
    keys = jax.random.split(jax.random.key(0), 2)
    z = jnp.asarray(rng.standard_normal((2, 6)))
    shapes = jax.eval_shape(lambda: gen.init(keys[0], z, keys, False))
    variables = jax.tree.map(lambda x: rng.standard_normal(x.shape), shapes)
    assert variables['params']['synthesis']['b8']['kernel0'].shape[2:] == (4, 3)
    ws = rng.standard_normal((2, 4, 5))
    images = jax.jit(
      lambda v, ws: gen.apply(v, ws, keys, 'constant', method='synthesize')
    )(jax.tree.map(jnp.asarray, variables), jnp.asarray(ws))
    by_hand = synthesis_by_hand(
      variables['params']['synthesis'], variables['noise']['synthesis'], ws
    )
    np.testing.assert_allclose(images, by_hand, rtol=1e-10, atol=1e-10)


def test_parameter_count_equals_the_paper():
  """26.2 million at 1024 pixels: Karras et al. 2019, section 2.

  The authors' networks also have the layers to images of the lower
  resolutions, for progressive growing.
  """
  gen = style_2019.Generator(1024, 3)
  key = jax.random.key(0)
  shapes = jax.eval_shape(
    lambda: gen.init(key, jnp.zeros((1, 512)), key[None], False)
  )
  count = sum(x.size for x in jax.tree.leaves(shapes['params']))
  lower = sum(3 * n + 3 for n in (512, 512, 512, 512, 256, 128, 64, 32))
  assert round((count + lower) / 1e6, 1) == 26.2
  assert gen.layers == 18


def test_noise_acts_only_with_a_strength():
  """It depends only on the key."""
  gen = style_2019.Generator(8, 1, 4, 1, features=32, most_features=4)
  keys = jax.random.split(jax.random.key(1), 2)
  z = jnp.ones((2, 3))
  v = gen.init(jax.random.key(0), z, keys, False)
  apply = lambda v, noise: gen.apply(
    v, jnp.ones((2, 4, 4)), keys, noise, method='synthesize'
  )
  np.testing.assert_array_equal(apply(v, 'none'), apply(v, 'random'))
  v['params']['synthesis']['b8']['layer1']['noise_strength'] += 1.0
  noisy = apply(v, 'random')
  assert np.abs(noisy[0] - noisy[1]).max() > 0.01
  np.testing.assert_array_equal(noisy, apply(v, 'random'))


def test_unsupported_sizes_raise():
  key = jax.random.key(0)
  init = lambda gen: gen.init(key, jnp.zeros((1, 4)), key[None], False)
  with pytest.raises(UserError, match='not 24: set config'):
    init(style_2019.Generator(24, 3))
  with pytest.raises(UserError, match='gives no feature map at 64 pixels'):
    init(style_2019.Generator(64, 3, features=32))


@pytest.mark.slow
def test_run_has_w_synthesize_and_mix(tmp_path):
  config = gan_jax.experiment('experiments/stylegan.py:tiny')
  config.total_images = 16
  gan_jax.train(config, tmp_path)
  run = gan_jax.load(tmp_path)
  w = run.w(run.inputs(3)['z'])
  assert w.shape == (3, 4, 16)
  images = run.synthesize(w)
  assert images.shape == (3, 8, 8, 3)
  assert images.std() > 0
  average = run.w(run.inputs(3)['z'], truncation=0.0)
  np.testing.assert_allclose(average[0], average[2])
  assert run.mix(rows=1, columns=2).size[0] > 0
