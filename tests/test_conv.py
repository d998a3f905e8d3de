"""Compares convolutions with explicit sums and with lax's derivatives, in
float64.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import ops
from gan_jax.ops import conv_cpu, conv_xla, winograd
from gan_jax.ops.window import LAYOUT, Window

# kernel, stride, padding, size, channels in and out
SHAPES = [
  (1, 1, 0, (5, 4), (1, 3)),
  (1, 2, 0, (5, 7), (3, 2)),
  (2, 1, (0, 1), (4, 5), (2, 3)),
  (2, 2, 0, (7, 6), (3, 1)),
  (3, 1, 1, (5, 6), (3, 3)),
  (3, 2, 1, (7, 8), (1, 4)),
  (4, 1, (1, 2), (6, 5), (2, 1)),
  (4, 2, 1, (8, 9), (3, 2)),
  (5, 1, 2, (5, 7), (1, 1)),
  (5, 2, (2, 1), (9, 8), (2, 3)),
]
# These need 4 images. The padding of the last one is not symmetric.
WINOGRAD = [
  (4, 2, 1, (16, 12), (32, 33)),
  (4, 2, 0, (14, 18), (33, 32)),
  (3, 1, 1, (12, 8), (64, 65)),
  (3, 1, 0, (14, 10), (65, 64)),
  (3, 1, (0, 1), (11, 13), (64, 64)),
]


@pytest.fixture(autouse=True)
def float64():
  with jax.enable_x64(True):
    yield


def make(shape, n=2):
  """Returns random x, w and y that fit the shape."""
  kernel, stride, padding, size, (c, d) = shape
  before, after = (padding, padding) if isinstance(padding, int) else padding
  h, w = ((s + before + after - kernel) // stride + 1 for s in size)
  rng = np.random.default_rng(0)
  shapes = (n, *size, c), (kernel, kernel, c, d), (n, h, w, d)
  return [jnp.asarray(rng.normal(size=shape)) for shape in shapes]


def form(shape, x, w, y):
  """Returns <conv(x, w), y>, summed term by term."""
  kernel, stride, padding, size, _ = shape
  before = padding if isinstance(padding, int) else padding[0]
  x, w, y = map(np.asarray, (x, w, y))
  total = 0.0
  places = itertools.product(*map(range, y.shape[1:3]), *[range(kernel)] * 2)
  for i, j, k, m in places:
    p, q = stride * i + k - before, stride * j + m - before
    if 0 <= p < size[0] and 0 <= q < size[1]:
      total += np.einsum('nc,cd,nd', x[:, p, q], w[k, m], y[:, i, j])
  return total


@pytest.mark.parametrize(
  'shape',
  [
    *SHAPES,
    WINOGRAD[0],
    WINOGRAD[-1],
    *(pytest.param(x, marks=pytest.mark.slow) for x in WINOGRAD[1:-1]),
  ],
)
def test_conv_transpose_and_filter_grad_are_adjoint(shape):
  """All three operations contract one trilinear form, on CPUs and on other
  platforms.
  """
  n = 4
  x, w, y = make(shape, n)
  kernel, stride, padding, size, channels = shape
  pads = (padding, padding) if isinstance(padding, int) else padding
  window = Window((kernel, kernel), stride, (pads, pads), size)
  fits = partial(winograd.applies, window, n, channels)
  assert fits(jnp.dtype('float32')) == (shape in WINOGRAD)
  assert not fits(jnp.dtype('bfloat16'))
  expected = form(shape, x, w, y)
  for module in (conv_cpu, conv_xla):
    for value in (
      jnp.sum(module.conv(window, x, w) * y),
      jnp.sum(module.conv_transpose(window, y, w) * x),
      jnp.sum(module.filter_grad(window, x, y) * w),
    ):
      np.testing.assert_allclose(value, expected, rtol=1e-11)
  for value in (
    jnp.sum(ops.conv(x, w, stride, padding) * y),
    jnp.sum(ops.conv_transpose(y, w, stride, padding, size) * x),
    jnp.sum(ops.filter_grad(x, y, (kernel, kernel), stride, padding) * w),
  ):
    np.testing.assert_allclose(value, expected, rtol=1e-11)


def test_each_group_convolves_its_own_channels():
  """Compares each operation on CPUs and on other platforms, and the gradient of
  a gradient's norm with autodiff of lax.
  """
  groups, window = 3, Window((3, 3), 2, ((1, 1), (1, 1)), (7, 8), 3)
  rng = np.random.default_rng(0)
  shapes = (2, 7, 8, 6), (3, 3, 2, 9), (2, 4, 4, 9)
  x, w, y = (jnp.asarray(rng.normal(size=shape)) for shape in shapes)
  split = lambda a: jnp.split(a, groups, -1)
  ungrouped = window._replace(groups=1)
  for module in (conv_cpu, conv_xla):
    for name, a, b in (
      ('conv', x, w),
      ('conv_transpose', y, w),
      ('filter_grad', x, y),
    ):
      function = getattr(module, name)
      pairs = zip(split(a), split(b), strict=True)
      expected = [conv_xla.__dict__[name](ungrouped, *pair) for pair in pairs]
      np.testing.assert_allclose(
        function(window, a, b), jnp.concatenate(expected, -1), rtol=1e-11
      )

  def penalty(conv):
    of_all = jax.grad(lambda x, w: jnp.sum(jnp.sin(conv(x, w))))
    value = lambda x, w: jnp.sum(jnp.sin(of_all(x, w)))
    return jax.jit(jax.grad(value, (0, 1)))(x, w)

  ours = lambda x, w: ops.conv(x, w, 2, 1, groups=groups)
  plain = lambda x, w: conv_xla.conv(window, x, w)
  for got, expected in zip(penalty(ours), penalty(plain), strict=True):
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-11)
  with pytest.raises(ValueError, match='2 groups does not fit 6 channels'):
    ops.conv(x, w, groups=2)


def lax_conv(shape):
  _, stride, padding, _, _ = shape
  pads = (padding, padding) if isinstance(padding, int) else padding
  return lambda x, w: jax.lax.conv_general_dilated(
    x, w, (stride, stride), (pads, pads), dimension_numbers=LAYOUT
  )


THRICE = [SHAPES[7]]
MORE = [
  pytest.param(shape, marks=pytest.mark.slow)
  for shape in [*SHAPES, *WINOGRAD]
  if shape not in THRICE
]


@pytest.mark.parametrize('shape', [*THRICE, *MORE])
def test_derivatives_up_to_third_order_equal_lax(shape):
  """For a nonlinear function of each operation: penalties of penalties are
  correct.
  """
  x, w, y = make(shape, n=4 if shape in WINOGRAD else 1)
  kernel, stride, padding, size, _ = shape
  plain = lax_conv(shape)
  of_y = lambda y, w: jax.vjp(lambda x: plain(x, w), jnp.zeros_like(x))[1](y)[0]
  of_w = lambda x, y: jax.vjp(lambda w: plain(x, w), jnp.zeros_like(w))[1](y)[0]
  pairs = [
    (lambda x, w: ops.conv(x, w, stride, padding), plain, x, w),
    (lambda y, w: ops.conv_transpose(y, w, stride, padding, size), of_y, y, w),
    (
      lambda x, y: ops.filter_grad(x, y, (kernel, kernel), stride, padding),
      of_w,
      x,
      y,
    ),
  ]

  def orders(function, a, b):
    """Returns the first and the third derivatives of a scalar function."""
    value = lambda a, b: jnp.sum(jnp.sin(function(a, b)))

    def norm_of_gradient(value):
      grad = jax.grad(value, (0, 1))
      return lambda a, b: sum(jnp.sum(jnp.sin(g)) for g in grad(a, b))

    first = norm_of_gradient(value)
    second = norm_of_gradient(first)
    return jax.grad(value, (0, 1))(a, b), jax.grad(second, (0, 1))(a, b)

  for ours, theirs, a, b in pairs:
    got = jax.jit(lambda a, b, f=ours: orders(f, a, b))(a, b)
    expected = jax.jit(lambda a, b, f=theirs: orders(f, a, b))(a, b)
    for g, e in zip(
      jax.tree.leaves(got), jax.tree.leaves(expected), strict=True
    ):
      np.testing.assert_allclose(g, e, rtol=1e-8, atol=1e-9 * abs(e).max())


def test_jvp_and_vmap_equal_lax():
  x, w, _ = make(SHAPES[5])
  plain = lax_conv(SHAPES[5])
  ours = lambda x, w: ops.conv(x, w, 2, 1)
  got = jax.jvp(ours, (x, w), (jnp.cos(x), jnp.sin(w)))
  expected = jax.jvp(plain, (x, w), (jnp.cos(x), jnp.sin(w)))
  for g, e in zip(got, expected, strict=True):
    np.testing.assert_allclose(g, e, rtol=1e-11, atol=1e-12)
  xs, ws = jnp.stack([x, -2 * x, x**2]), jnp.stack([w, w**2, 3 * w])
  both = jax.vmap(jax.grad(lambda x, w: jnp.sum(jnp.sin(ours(x, w)))))(xs, ws)
  for i in range(3):
    one = jax.grad(lambda x, w: jnp.sum(jnp.sin(plain(x, w))))(xs[i], ws[i])
    np.testing.assert_allclose(both[i], one, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(
  ('kernel', 'stride', 'of_plain'), [(4, 2, 4), (3, 1, 8)]
)
def test_winograd_loses_little_accuracy_in_float32(kernel, stride, of_plain):
  """The error is at most a few times that of the plain convolution."""
  exact = make((kernel, stride, 1, (16, 16), (64, 64)))
  x, w, y = (a.astype(jnp.float32) for a in exact)
  x64, w64, y64 = (a.astype(jnp.float64) for a in (x, w, y))
  pads = (1, 1), (1, 1)
  window = Window((kernel, kernel), stride, pads, (16, 16))
  for name, args, args64 in (
    ('conv', (x, w), (x64, w64)),
    ('conv_transpose', (y, w), (y64, w64)),
    ('filter_grad', (x, y), (x64, y64)),
  ):
    ours, plain = getattr(winograd, name), getattr(conv_xla, name)
    expected = plain(window, *args64)
    scale = jnp.abs(expected).max()
    error = jnp.abs(ours(window, *args) - expected).max() / scale
    plain_error = jnp.abs(plain(window, *args) - expected).max() / scale
    assert error < 2e-6
    assert error < of_plain * plain_error


def test_vmapped_penalty_uses_only_our_convolutions():
  """Gradients under vmap, and gradients of those, use no other convolution."""
  x, w, _ = make(SHAPES[7])

  def penalty(w):
    of_one = lambda x: jnp.sum(jnp.sin(ops.conv(x[None], w, 2, 1)))
    return jnp.sum(jnp.sin(jax.vmap(jax.grad(of_one))(x)))

  text = str(jax.make_jaxpr(jax.grad(penalty))(w))
  assert 'gan_jax_filter_grad' in text
  assert 'conv_general_dilated' not in text
  plain = lax_conv(SHAPES[7])
  of_all = jax.grad(lambda x, w: jnp.sum(jnp.sin(plain(x, w))))
  expected = jax.grad(lambda w: jnp.sum(jnp.sin(of_all(x, w))))(w)
  np.testing.assert_allclose(jax.grad(penalty)(w), expected, rtol=1e-9)


def test_mismatched_shapes_raise():
  x, w = jnp.ones((1, 2, 2, 3)), jnp.ones((4, 4, 3, 5))
  with pytest.raises(ValueError, match='larger than the image'):
    ops.conv(x, w)
  with pytest.raises(ValueError, match='of one dtype'):
    ops.conv(x, w.astype(jnp.bfloat16), 2, 1)
  y = jnp.ones((1, 4, 4, 5))
  with pytest.raises(ValueError, match=r'not \(4, 4\)'):
    ops.conv_transpose(y, w, 2, 0, (8, 8))
  with pytest.raises(ValueError, match='not'):
    ops.filter_grad(x, y, (4, 4), 2, 1)


def test_other_platforms_use_plain_convolutions():
  """A GPU's program has no matrix products, which only CPUs need."""
  x, w, _ = make((4, 2, 1, (8, 8), (32, 32)))
  grad = jax.grad(lambda w: jnp.sum(jnp.sin(ops.conv(x, w, 2, 1))))
  text = jax.jit(grad).trace(w).lower(lowering_platforms=('cuda',)).as_text()
  assert 'convolution' in text
  assert 'dot_general' not in text


def test_conv_transpose_defaults_to_the_smallest_size():
  y, w = jnp.ones((1, 4, 5, 2)), jnp.ones((4, 4, 3, 2))
  assert ops.conv_transpose(y, w, 2, 1).shape == (1, 8, 10, 3)
  assert ops.conv_transpose(y, w, 2, 1, (9, 10)).shape == (1, 9, 10, 3)
