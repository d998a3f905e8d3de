"""Tests of networks: shapes and parameter counts against the papers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.errors import UserError
from gan_jax.models import dcgan, infogan, mlp, progressive, resnet
from gan_jax.models.layers import ACTIVATIONS, Conv, ConvTranspose, PRelu

N = 4
KEYS = jax.random.split(jax.random.key(0), N)


def count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def make(module, x, **settings):
  """Returns the variables of a network, and its outputs."""
  init = jax.jit(partial(module.init, train=False, **settings))
  variables = init(jax.random.key(0), x, KEYS)
  return variables, outputs(module, variables, x, **settings)


def outputs(module, variables, x, **settings):
  apply = jax.jit(partial(module.apply, train=False, **settings))
  return apply(variables, x, KEYS)


@pytest.mark.parametrize('resolution', [32, 64, 128])
def test_dcgan_has_every_resolution(resolution):
  gen = dcgan.Generator(resolution, 3, features=4)
  disc = dcgan.Discriminator(resolution, features=4)
  _, images = jax.eval_shape(lambda: make(gen, jnp.zeros((N, 100))))
  assert images.shape == (N, resolution, resolution, 3)
  _, logits = jax.eval_shape(lambda: make(disc, jnp.zeros(images.shape)))
  assert logits.shape == (N,)


def test_dcgan_64_has_the_parameters_of_its_reference():
  """The reference (64 filters, z of 100, RGB) has 3,576,704 parameters in G
  and 2,765,568 in D: 4x4 kernels without biases, and a gain and a bias for
  each channel of a BatchNorm.
  """
  k = 4 * 4
  gen = 100 * k * 512 + k * (512 * 256 + 256 * 128 + 128 * 64 + 64 * 3)
  gen += 2 * (512 + 256 + 128 + 64)
  disc = k * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512)
  disc += 2 * (128 + 256 + 512)
  assert (gen, disc) == (3_576_704, 2_765_568)
  shapes = lambda module, x: jax.eval_shape(
    lambda: module.init(jax.random.key(0), x, KEYS, train=False)
  )
  gen_vars = shapes(dcgan.Generator(64, 3), jnp.zeros((N, 100)))
  disc_vars = shapes(dcgan.Discriminator(64), jnp.zeros((N, 64, 64, 3)))
  assert count(gen_vars['params']) == gen
  assert count(disc_vars['params']) == disc


def test_dcgan_initializes_as_in_the_paper():
  """Weights N(0, 0.02), gains N(1, 0.02), biases 0."""
  variables, _ = make(dcgan.Generator(32, 3, features=32), jnp.zeros((N, 100)))
  for path, leaf in jax.tree_util.tree_leaves_with_path(variables['params']):
    name = path[-1].key
    mean, std = {
      'kernel': (0, 0.02), 'scale': (1, 0.02), 'bias': (0, 0),
    }[name]  # fmt: skip
    error = 5 * std / np.sqrt(leaf.size) + 1e-9
    assert abs(float(leaf.mean()) - mean) < error
    assert abs(float(leaf.std()) - std) < error


def test_dcgan_normalizes_all_but_the_outer_layers():
  gen, _ = make(dcgan.Generator(64, 3, features=4), jnp.zeros((N, 100)))
  disc, _ = make(dcgan.Discriminator(64, features=4), jnp.zeros((N, 64, 64, 3)))
  widths = lambda tree: sorted(len(s['mean']) for s in tree.values())
  assert widths(gen['batch_stats']) == [4, 8, 16, 32]
  assert widths(disc['batch_stats']) == [8, 16, 32]


def test_upsampling_is_the_transpose_of_downsampling():
  """<conv(x, w), y> = <x, conv_transpose(y, w)> for D's strided convolution and
  G's transposed convolution, which have the same alignment.
  """
  rng = np.random.default_rng(0)
  w = jnp.asarray(rng.normal(size=(4, 4, 3, 5)), jnp.float32)
  x = jnp.asarray(rng.normal(size=(2, 8, 8, 3)), jnp.float32)
  y = jnp.asarray(rng.normal(size=(2, 4, 4, 5)), jnp.float32)
  params = {'params': {'kernel': w}}
  settings = {'kernel': 4, 'stride': 2, 'padding': 1, 'dtype': jnp.float32}
  left = jnp.sum(Conv(5, **settings).apply(params, x) * y)
  right = jnp.sum(x * ConvTranspose(3, **settings).apply(params, y))
  np.testing.assert_allclose(left, right, rtol=1e-4)


def test_dcgan_of_unsupported_resolution_raises():
  for resolution in (28, 48, 256):
    with pytest.raises(UserError, match=f'not {resolution}'):
      dcgan.stages(resolution)


def test_infogan_has_the_layers_of_the_paper():
  """Chen et al. 2016, appendix C.1: 74 inputs, 28x28 grey images, and a head
  of 10 + 2 * 2 outputs; a gain and a bias for each unit of a BatchNorm.
  """
  k, flat = 4 * 4, 7 * 7 * 128
  gen = 74 * 1024 + 1024 * flat + k * (128 * 64 + 64 * 1) + 1
  gen += 2 * (1024 + flat + 64)
  disc = k * (1 * 64 + 64 * 128) + 64 + 128 + flat * 1024 + 1025
  disc += 2 * (128 + 1024)
  head = 1024 * 128 + 2 * 128 + 129 * 14
  shapes = lambda module, x: jax.eval_shape(
    lambda: module.init_with_output(jax.random.key(0), x, KEYS, train=False)
  )
  fakes, gen_vars = shapes(infogan.Generator(28, 1), jnp.zeros((N, 74)))
  images = jnp.zeros(fakes.shape)
  assert images.shape == (N, 28, 28, 1)
  assert count(gen_vars['params']) == gen
  outputs, disc_vars = shapes(infogan.Discriminator(28, outputs=14), images)
  assert [x.shape for x in outputs] == [(N,), (N, 14)]
  assert count(disc_vars['params']) == disc + head
  logits, disc_vars = shapes(infogan.Discriminator(28), images)
  assert logits.shape == (N,)
  assert count(disc_vars['params']) == disc
  plain = infogan.Discriminator(28, normalized=False)
  assert list(shapes(plain, images)[1]) == ['params']
  with pytest.raises(UserError, match='30 is no multiple of 4'):
    shapes(infogan.Discriminator(30), jnp.zeros((N, 30, 30, 1)))


def test_mlp_has_the_expected_parameter_count():
  """(d + 1) w for each dense layer of d inputs and w units."""
  gen, images = make(mlp.Generator(28, 1, (256, 512)), jnp.zeros((N, 64)))
  assert images.shape == (N, 28, 28, 1)
  expected = 65 * 256 + 257 * 512 + 513 * 784
  assert count(gen['params']) == expected
  disc, logits = make(mlp.Discriminator((32,)), images)
  assert logits.shape == (N,)
  assert count(disc['params']) == 785 * 32 + 33


def test_activations_by_hand():
  x = jnp.array([-2.0, 3.0])
  np.testing.assert_allclose(ACTIVATIONS['relu'](0.2)(x), [0, 3])
  np.testing.assert_allclose(ACTIVATIONS['leaky_relu'](0.2)(x), [-0.4, 3])
  np.testing.assert_allclose(ACTIVATIONS['leaky_relu'](0.01)(x), [-0.02, 3])
  prelu = PRelu(0.25)
  variables = prelu.init(jax.random.key(0), x)
  np.testing.assert_allclose(prelu.apply(variables, x), [-0.5, 3])
  grads = jax.grad(lambda v: prelu.apply(v, x).sum())(variables)
  np.testing.assert_allclose(grads['params']['slope'], -2.0)  # it is learnt


@pytest.mark.parametrize(
  'module', [mlp.Generator, dcgan.Generator, infogan.Generator]
)
def test_bfloat16_keeps_float32_parameters_and_images(module):
  gen = module(32, 1, dtype=jnp.bfloat16)
  variables, images = make(gen, jnp.ones((N, 64)))
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {
    jnp.dtype('float32')
  }
  assert images.dtype == jnp.float32
  exact = outputs(module(32, 1), variables, jnp.ones((N, 64)))
  assert 0 < abs(images - exact).max() < 0.05


def test_mlp_has_a_hidden_layer_after_minibatch_stddev():
  """As in PGGAN, the channel is combined with features before the logit."""
  group = partial(mlp.Discriminator, dropout=0.0, stddev_group=2)
  x = jnp.array([[0.0, 1], [2, 3], [4, 4], [4, 4]]).reshape(N, 1, 1, 2)
  variables, _ = make(group(hidden=(5, 3)), x)
  shapes = {k: v['kernel'].shape for k, v in variables['params'].items()}
  assert shapes == {'Dense_0': (2, 5), 'Dense_1': (5 + 1, 3), 'Dense_2': (3, 1)}
  # A single layer by hand: w.x + w' s, with s = 1 of the pair that differs by 2
  # in both coordinates, and s = 0 of the equal pair.
  variables, logits = make(group(hidden=()), x)
  *w, w_s = variables['params']['Dense_0']['kernel'][:, 0]
  expected = x.reshape(N, 2) @ jnp.array(w) + w_s * jnp.array([1, 1, 0, 0])
  np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
  'disc',
  [
    mlp.Discriminator(hidden=(8,), dtype=jnp.bfloat16),
    dcgan.Discriminator(16, features=4, dtype=jnp.bfloat16),
    resnet.Discriminator(features=(4, 8), dtype=jnp.bfloat16),
    progressive.Discriminator(16, 6, dtype=jnp.bfloat16),
  ],
)
def test_logits_are_float32(disc):
  """Losses take differences of logits."""
  x = jax.random.normal(jax.random.key(1), (N, 16, 16, 3))
  settings = {'stage': 4} if isinstance(disc, progressive.Discriminator) else {}
  _, logits = make(disc, x, **settings)
  assert logits.dtype == jnp.float32
  assert (logits != logits.astype(jnp.bfloat16)).any()
