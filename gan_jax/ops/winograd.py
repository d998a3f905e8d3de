"""Winograd's algorithm for 4x4 convolutions of stride 2, for CPUs.

It needs 9/16 of the multiplications. On the four phases of its input, a 4x4
convolution of stride 2 is a 2x2 convolution of stride 1. In one dimension, two
outputs of a filter with two taps need three products instead of four,

  y0 = x0 w0 + x1 w1 = (x0 - x1) w0 + x1 (w0 + w1),
  y1 = x1 w0 + x2 w1 =                x1 (w0 + w1) + (x2 - x1) w1,

and in two dimensions nine instead of sixteen (Winograd 1980; Lavin & Gray 2016,
F(2x2, 2x2)), which are computed as nine matrix products. Three linear maps (of
x, y and w) to nine matrices serve all three operations: the transpose of a map
converts the nine products to the result. The maps are sums and differences of
two values. In float32 the error is close to that of a direct convolution. In
bfloat16 it would be four times as large, and CPU products are slow, so bfloat16
is not supported.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from gan_jax.ops.window import Window

# Below this, XLA's convolutions are about as fast and compile faster.
MIN_CHANNELS = 32
EXACT = (jnp.float32, jnp.float64)

Nine = list[Array]  # nine matrices [i, j]


def applies(window: Window, channels: Sequence[int], dtype: jnp.dtype) -> bool:
  """Returns whether this module supports the convolution and is faster."""
  return (
    dtype in EXACT
    and window.kernel == (4, 4)
    and window.stride == 2
    and window.padding == ((1, 1), (1, 1))
    and all(n % 4 == 0 for n in window.size)
    and min(channels) >= MIN_CHANNELS
  )


def conv(
  x: Float[Array, 'n H W c'], w: Float[Array, '4 4 c d']
) -> Float[Array, 'n h w d']:
  """Computes `ops.conv` with stride 2 and padding 1."""
  n, height, width, _ = x.shape
  nine = _products(_of_input(x), _of_filter(w), 1, 0)
  return _transpose(_of_output, nine, (n, height // 2, width // 2, w.shape[-1]))


def conv_transpose(
  y: Float[Array, 'n h w d'], w: Float[Array, '4 4 c d']
) -> Float[Array, 'n H W c']:
  """Computes `ops.conv_transpose` with stride 2 and padding 1."""
  n, height, width, _ = y.shape
  nine = _products(_of_output(y), _of_filter(w), 1, 1)
  return _transpose(_of_input, nine, (n, 2 * height, 2 * width, w.shape[2]))


def filter_grad(
  x: Float[Array, 'n H W c'], y: Float[Array, 'n h w d']
) -> Float[Array, '4 4 c d']:
  """Computes `ops.filter_grad` with stride 2 and padding 1."""
  nine = _products(_of_input(x), _of_output(y), 0, 0)
  return _transpose(_of_filter, nine, (4, 4, x.shape[-1], y.shape[-1]))


def _transpose(
  linear_map: Callable[[Array], Nine], nine: Nine, shape: tuple[int, ...]
) -> Array:
  """Applies the transpose of a linear map; the result has `shape`."""
  array = jax.ShapeDtypeStruct(shape, nine[0].dtype)
  return jax.linear_transpose(linear_map, array)(nine)[0]


def _products(a: Nine, b: Nine, axis_a: int, axis_b: int) -> Nine:
  contract = ((axis_a,), (axis_b,)), ((), ())
  return [lax.dot_general(u, v, contract) for u, v in zip(a, b, strict=True)]


def _of_input(x: Float[Array, 'n H W c']) -> Nine:
  """Maps x to nine matrices [tiles, 4c]: differences along both axes."""
  n, height, width, c = x.shape
  tall, wide = height // 4, width // 4
  x = jnp.pad(x, ((0, 0), (1, 3), (1, 3), (0, 0)))
  x = x.reshape(n, tall + 1, 2, 2, wide + 1, 2, 2 * c)

  def three(x: Array, axis: int) -> tuple[Array, Array, Array]:
    even = lax.index_in_dim(x, 0, axis + 1, keepdims=False)
    odd = lax.index_in_dim(x, 1, axis + 1, keepdims=False)
    last = x.shape[axis] - 1
    part = lambda x, start: lax.slice_in_dim(x, start, start + last, 1, axis)
    middle = part(odd, 0)
    return part(even, 0) - middle, middle, part(even, 1) - middle

  tiles = [tile for row in three(x, 1) for tile in three(row, 3)]
  return [x.transpose(0, 1, 3, 2, 4).reshape(-1, 4 * c) for x in tiles]


def _of_output(y: Float[Array, 'n h w d']) -> Nine:
  """Maps y to nine matrices [tiles, d]: sums along both axes."""
  n, height, width, d = y.shape
  y = y.reshape(n, height // 2, 2, width // 2, 2, d).transpose(2, 4, 0, 1, 3, 5)
  return _sums(y.reshape(2, 2, -1, d))


def _of_filter(w: Float[Array, '4 4 c d']) -> Nine:
  """Maps w to nine matrices [4c, d]: sums along both axes."""
  c, d = w.shape[2:]
  w = w.reshape(2, 2, 2, 2, c, d).transpose(0, 2, 1, 3, 4, 5)
  return _sums(w.reshape(2, 2, 4 * c, d))


def _sums(two_by_two: Float[Array, '2 2 i j']) -> Nine:
  three = lambda a, b: (a, a + b, b)
  columns = [three(two_by_two[0, i], two_by_two[1, i]) for i in (0, 1)]
  return [x for row in zip(*columns, strict=True) for x in three(*row)]
