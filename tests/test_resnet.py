"""Tests of ResNets, spectral norm and conditioning, against the papers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.errors import UserError
from gan_jax.models import mlp, resnet
from gan_jax.models.layers import ConditionalBatchNorm
from gan_jax.models.spectral import Conv, Dense

N, CLASSES = 4, 3
KEYS = jax.random.split(jax.random.key(0), N)
LABELS = jax.nn.one_hot(jnp.array([0, 2, 1, 2]), CLASSES)
DRAW = lambda *shape: jnp.asarray(
  np.random.default_rng(0).normal(size=shape), jnp.float32
)


def shapes(module, x, **kwargs):
  make = partial(module.init, train=False, **kwargs)
  return jax.eval_shape(lambda: make(jax.random.key(0), x, KEYS))


def count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


# -- Spectral normalisation --


def pass_through(layer, variables, x):
  """Applies a layer as in D's pass over reals: with one power iteration."""
  return layer.apply(variables, x, mutable=['spectral'])


@pytest.mark.parametrize(
  'layer, shape',
  [(Dense(5, spectral=True), (N, 7)), (Conv(5, spectral=True), (N, 4, 4, 3))],
)
def test_spectral_norm_converges_to_the_largest_singular_value(layer, shape):
  """NumPy computes it for a matrix [taps, outputs]."""
  x = DRAW(*shape)
  variables = layer.init(jax.random.key(0), x)
  kernel = np.asarray(variables['params']['kernel'], np.float64)
  largest = np.linalg.svd(kernel.reshape(-1, 5), compute_uv=False)[0]
  for _ in range(60):
    y, new = pass_through(layer, variables, x)
    variables = {**variables, **new}
  plain = layer.clone(spectral=False)
  expected = plain.apply({'params': variables['params']}, x) / largest
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_new_layer_is_divided_by_its_estimate():
  """s = |v^T W u| with u and v of length 1, before any power iteration."""
  for layer, shape in (
    (Dense(50, spectral=True), (N, 70)),
    (Conv(50, spectral=True), (N, 4, 4, 3)),
  ):
    x = DRAW(*shape)
    variables = layer.init(jax.random.key(0), x)
    u = np.asarray(variables['spectral']['u'], np.float64)
    assert np.linalg.norm(u) == pytest.approx(1, abs=1e-6)
    w = np.asarray(variables['params']['kernel'], np.float64).reshape(-1, 50)
    v = w @ u / np.linalg.norm(w @ u)
    plain = layer.clone(spectral=False)
    expected = plain.apply({'params': variables['params']}, x) / abs(v @ w @ u)
    output = layer.apply(variables, x)
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)


def test_one_power_iteration_by_hand():
  """v <- W u / |W u|, u <- W^T v / |W^T v| in an update of D, and nowhere else;
  then s = |W u| for every pass.
  """
  layer, x = Dense(5, spectral=True), DRAW(N, 7)
  variables = layer.init(jax.random.key(0), x)
  w, u = (
    np.asarray(t, np.float64)
    for t in (variables['params']['kernel'], variables['spectral']['u'])
  )
  unit = lambda t: t / np.linalg.norm(t)
  after = unit(w.T @ unit(w @ u))
  expected = np.asarray(x) @ w / np.linalg.norm(w @ after)
  y, new = pass_through(layer, variables, x)
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(new['spectral']['u'], after, rtol=1e-5)
  again = layer.apply({**variables, **new}, x)
  np.testing.assert_allclose(again, y, rtol=1e-6)
  before = np.asarray(x) @ w / np.linalg.norm(w @ u)
  unchanged = layer.apply(variables, x)
  np.testing.assert_allclose(unchanged, before, rtol=1e-4, atol=1e-5)


def test_gradient_includes_the_norm():
  """Of W / s with s = v^T W u, u and v fixed: finite differences in float64."""
  with jax.enable_x64(True):
    layer = Dense(5, spectral=True, dtype=jnp.float64)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(N, 7)))
    variables = jax.tree.map(
      lambda t: t.astype(jnp.float64), layer.init(jax.random.key(0), x)
    )
    for _ in range(200):  # until u and v are constant
      _, new = pass_through(layer, variables, x)
      variables = {**variables, **new}

    def total(w):
      params = {**variables['params'], 'kernel': w}
      return jnp.sum(layer.apply({**variables, 'params': params}, x) ** 2)

    w = variables['params']['kernel']
    direction = jnp.asarray(np.random.default_rng(1).normal(size=w.shape))
    difference = (
      total(w + 1e-5 * direction) - total(w - 1e-5 * direction)
    ) / 2e-5
    derivative = jnp.sum(jax.grad(total)(w) * direction)
    np.testing.assert_allclose(derivative, difference, rtol=1e-6)


# -- Networks --


def conv(c, d, k=3):
  return k * k * c * d + d


def test_sngan_of_cifar10_has_the_parameter_count_of_the_paper():
  """Miyato et al. 2018, table 4: G 256 wide, D 128; weights and biases."""
  gen = shapes(resnet.Generator(32, 3), jnp.zeros((N, 128)))
  up = 2 * conv(256, 256) + conv(256, 256, 1) + 2 * 2 * 256
  expected = 129 * 16 * 256 + 3 * up + 2 * 256 + conv(256, 3)
  assert count(gen['params']) == expected
  disc = shapes(resnet.Discriminator(), jnp.zeros((N, 32, 32, 3)))
  first = conv(3, 128) + conv(128, 128) + conv(3, 128, 1)
  second = 2 * conv(128, 128) + conv(128, 128, 1)
  expected = first + second + 2 * 2 * conv(128, 128) + 129
  assert count(disc['params']) == expected
  # One vector for each of the layers.
  assert len(jax.tree.leaves(disc['spectral'])) == 3 + 3 + 2 + 2 + 1


@pytest.mark.parametrize(
  'resolution, gen, disc, num_downsamples',
  [
    (48, (512, 256, 128, 64), (64, 128, 256, 512, 1024), 4),
    (64, (1024, 512, 256, 128, 64), (64, 128, 256, 512, 1024), 5),
    (128, (1024, 1024, 512, 256, 128, 64), (64, 128, 256, 512, 1024, 1024), 5),
  ],
)
def test_resnets_have_the_sizes_of_the_paper(
  resolution, gen, disc, num_downsamples
):
  """Miyato et al., tables 5 and 6: they start at 6x6 or 4x4."""
  gen, disc = (
    resnet.Generator(resolution, 3, features=gen),
    resnet.Discriminator(features=disc, num_downsamples=num_downsamples),
  )

  def generate_and_discriminate():
    z = jnp.zeros((N, 128))
    gen_vars = gen.init(jax.random.key(0), z, KEYS, False)
    images = gen.apply(gen_vars, z, KEYS, False)
    disc_vars = disc.init(jax.random.key(0), images, KEYS, False)
    return images, disc.apply(disc_vars, images, KEYS, False)

  images, logits = jax.eval_shape(generate_and_discriminate)
  assert images.shape == (N, resolution, resolution, 3)
  assert logits.shape == (N,)


def test_unreachable_size_raises():
  with pytest.raises(UserError, match='3 upsampling blocks'):
    shapes(resnet.Generator(28, 3), jnp.zeros((N, 128)))


# -- Classes --


def test_conditional_batch_norm_by_hand():
  """The normalized batch, then the gain and the bias of the class."""
  x = DRAW(N, 2, 2, 5)
  norm = ConditionalBatchNorm(True, jnp.float32, None)
  variables = norm.init(jax.random.key(0), x, LABELS)
  assert variables['params']['gain'].shape == (CLASSES, 5)
  gain, bias = DRAW(CLASSES, 5), DRAW(CLASSES, 5) ** 2
  params = {'gain': gain, 'bias': bias}
  y, _ = norm.apply({**variables, 'params': params}, x, LABELS,
                    mutable=['batch_stats'])  # fmt: skip
  flat = np.asarray(x, np.float64).reshape(-1, 5)
  normalized = (np.asarray(x) - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5)
  for example, label in enumerate((0, 2, 1, 2)):
    expected = np.asarray(gain)[label] * normalized[example]
    expected = expected + np.asarray(bias)[label]
    np.testing.assert_allclose(y[example], expected, rtol=1e-4, atol=1e-4)


def test_projection_by_hand():
  """logit(x, y) = logit(x) + <embedding of y, features>, or logit(x) alone."""
  disc = resnet.Discriminator((4, 6), num_downsamples=1, spectral=False)
  images = DRAW(N, 8, 8, 3)
  variables = disc.init(jax.random.key(0), images, KEYS, False, labels=LABELS)
  logits = lambda labels, variables=variables: np.asarray(
    disc.apply(variables, images, KEYS, False, labels=labels)
  )
  unconditional, projected = logits(None), logits(LABELS)
  one_by_one = [
    logits(jnp.tile(jnp.eye(CLASSES)[c], (N, 1))) - unconditional
    for c in range(CLASSES)
  ]
  expected = [one_by_one[c][i] for i, c in enumerate((0, 2, 1, 2))]
  np.testing.assert_allclose(
    projected - unconditional, expected, rtol=1e-3, atol=1e-5
  )
  without_embedding = jax.tree_util.tree_map_with_path(
    lambda path, x: 0 * x if 'Embed' in jax.tree_util.keystr(path) else x,
    variables,
  )
  np.testing.assert_allclose(
    logits(LABELS, without_embedding), unconditional, rtol=1e-6
  )
  assert abs(projected - unconditional).max() > 1e-3


def test_auxiliary_classifier_returns_class_logits():
  disc = resnet.Discriminator((4, 6), num_downsamples=1, auxiliary=True)
  images = DRAW(N, 8, 8, 3)
  variables = disc.init(jax.random.key(0), images, KEYS, False, labels=LABELS)
  logits, classes = disc.apply(variables, images, KEYS, False, labels=LABELS)
  assert (logits.shape, classes.shape) == ((N,), (N, CLASSES))


def test_mlp_concatenates_labels_with_its_inputs():
  """Mirza & Osindero 2014: the first layer has one more input per class."""
  gen = shapes(mlp.Generator(8, 1, (20,)), jnp.zeros((N, 10)), labels=LABELS)
  assert gen['params']['Dense_0']['kernel'].shape == (10 + CLASSES, 20)
  disc = shapes(
    mlp.Discriminator((20,)), jnp.zeros((N, 8, 8, 1)), labels=LABELS
  )
  assert disc['params']['Dense_0']['kernel'].shape == (64 + CLASSES, 20)
