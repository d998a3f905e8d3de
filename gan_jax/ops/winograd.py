"""Winograd's algorithm for two kinds of convolutions, for CPUs.

Those of 4x4 with stride 2 need 9/16 of the multiplications, and those of 3x3
with stride 1 need 4/9.

On the four phases of its input, a 4x4 convolution of stride 2 is a 2x2
convolution of stride 1. In one dimension, two outputs of a filter with two taps
need three products instead of four,

  y0 = x0 w0 + x1 w1 = (x0 - x1) w0 + x1 (w0 + w1),
  y1 = x1 w0 + x2 w1 =                x1 (w0 + w1) + (x2 - x1) w1,

and two outputs of a filter with three taps need four products instead of six,

  y0 = (x0 - x2) w0 + (x1 + x2) (w0 + w1 + w2) / 2
                    + (x2 - x1) (w0 - w1 + w2) / 2,
  y1 = (x1 + x2) (w0 + w1 + w2) / 2
     - (x2 - x1) (w0 - w1 + w2) / 2 - (x1 - x3) w2.

In two dimensions they are 9 products instead of 16, and 16 instead of 36
(Winograd 1980; Lavin & Gray 2016, F(2x2, 2x2) and F(2x2, 3x3)), which are
computed as 9 or 16 matrix products. Three linear maps (of x, y and w) to as
many matrices serve all three operations: the transpose of a map converts the
products to the result. The maps are sums and differences of two or three
values. In float32 the error is close to that of a direct convolution. In
bfloat16 it would be four times as large, and CPU products are slow, so bfloat16
is not supported.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from gan_jax.ops.window import Window

EXACT = (jnp.float32, jnp.float64)

Large = Float[Array, 'n H W c']
Small = Float[Array, 'n h w d']
Filter = Float[Array, 'k k c d']
Matrices = list[Array]


class Algorithm(NamedTuple):
  """The three linear maps, to 9 or 16 matrices, and where they are faster.

  Attributes:
    of_input: Maps the padded x to matrices [tiles, i].
    of_output: Maps y to matrices [tiles, d].
    of_filter: Maps w to matrices [i, d].
    stride: That of the convolution.
    min_channels: With fewer channels, XLA's convolutions are about as fast and
      compile faster.
    min_tiles: With fewer tiles of 2x2 outputs, the map of the filter takes
      longer than what the products save.
  """

  of_input: Callable[[Array], Matrices]
  of_output: Callable[[Small], Matrices]
  of_filter: Callable[[Filter], Matrices]
  stride: int
  min_channels: int
  min_tiles: int = 1


def applies(
  window: Window, n: Any, channels: Sequence[int], dtype: jnp.dtype
) -> bool:
  """Returns whether this module supports the convolution and is faster.

  Args:
    window: The convolution.
    n: The number of images; a symbol in programs that are exported.
    channels: Those of x and y.
    dtype: That of all arrays.
  """
  if window.kernel not in ALGORITHMS or dtype not in EXACT:
    return False
  algorithm = ALGORITHMS[window.kernel]
  height, width = _output_size(window)
  n = n if isinstance(n, int) else 1  # at least
  return (
    window.stride == algorithm.stride
    and height % 2 == width % 2 == 0
    and _used_size(window) == _padded_size(window)
    and n * height * width >= 4 * algorithm.min_tiles
    and min(channels) >= algorithm.min_channels
  )


def conv(window: Window, x: Large, w: Filter) -> Small:
  """Computes `ops.conv`."""
  maps = ALGORITHMS[window.kernel]
  products = _products(maps.of_input(_pad(window, x)), maps.of_filter(w), 1, 0)
  shape = x.shape[0], *_output_size(window), w.shape[-1]
  return _transpose(maps.of_output, products, shape)


def conv_transpose(window: Window, y: Small, w: Filter) -> Large:
  """Computes `ops.conv_transpose`."""
  maps = ALGORITHMS[window.kernel]
  products = _products(maps.of_output(y), maps.of_filter(w), 1, 1)
  shape = y.shape[0], *window.size, w.shape[2]
  of_input = lambda x: maps.of_input(_pad(window, x))
  return _transpose(of_input, products, shape)


def filter_grad(window: Window, x: Large, y: Small) -> Filter:
  """Computes `ops.filter_grad`."""
  maps = ALGORITHMS[window.kernel]
  products = _products(maps.of_input(_pad(window, x)), maps.of_output(y), 0, 0)
  shape = *window.kernel, x.shape[-1], y.shape[-1]
  return _transpose(maps.of_filter, products, shape)


def _pad(window: Window, x: Large) -> Float[Array, 'n P Q c']:
  return jnp.pad(x, ((0, 0), *window.padding, (0, 0)))


def _padded_size(window: Window) -> tuple[int, ...]:
  sides = zip(window.size, window.padding, strict=True)
  return tuple(size + sum(padding) for size, padding in sides)


def _output_size(window: Window) -> tuple[int, ...]:
  kernel, stride = window.kernel[0], window.stride
  return tuple((n - kernel) // stride + 1 for n in _padded_size(window))


def _used_size(window: Window) -> tuple[int, ...]:
  """Returns how much of the padded x the outputs depend on."""
  kernel, stride = window.kernel[0], window.stride
  return tuple(stride * (n - 1) + kernel for n in _output_size(window))


def _transpose(
  linear_map: Callable[[Array], Matrices],
  matrices: Matrices,
  shape: tuple[int, ...],
) -> Array:
  """Applies the transpose of a linear map; the result has `shape`."""
  array = jax.ShapeDtypeStruct(shape, matrices[0].dtype)
  return jax.linear_transpose(linear_map, array)(matrices)[0]


def _products(a: Matrices, b: Matrices, axis_a: int, axis_b: int) -> Matrices:
  contract = ((axis_a,), (axis_b,)), ((), ())
  return [lax.dot_general(u, v, contract) for u, v in zip(a, b, strict=True)]


def _each_column_and_row(
  one: Callable[..., tuple[Array, ...]], square: Float[Array, 'k k i j']
) -> Matrices:
  """Applies a map of k matrices to each column of a square, then each row."""
  size = range(square.shape[0])
  columns = [one(*(square[row, column] for row in size)) for column in size]
  return [x for row in zip(*columns, strict=True) for x in one(*row)]


def _four(x: Array, axis: int) -> tuple[Array, Array, Array, Array]:
  """Returns the four values of each tile along an axis.

  Tile i begins at 2 i: `axis` has [i, even or odd] and one more than the tiles.
  """
  even = lax.index_in_dim(x, 0, axis + 1, keepdims=False)
  odd = lax.index_in_dim(x, 1, axis + 1, keepdims=False)
  tiles = x.shape[axis] - 1
  part = lambda x, start: lax.slice_in_dim(x, start, start + tiles, 1, axis)
  return part(even, 0), part(odd, 0), part(even, 1), part(odd, 1)


def _two_by_two(y: Small) -> Float[Array, '2 2 tiles d']:
  """Returns the values of each tile of 2x2 outputs."""
  n, h, w, d = y.shape
  y = y.reshape(n, h // 2, 2, w // 2, 2, d).transpose(2, 4, 0, 1, 3, 5)
  return y.reshape(2, 2, -1, d)


# 4x4 with stride 2: each value is that of four phases.


def _input_4(x: Large) -> Matrices:
  """Maps padded images to nine matrices [tiles, 4c]."""
  n, height, width, c = x.shape
  tall, wide = height // 4, width // 4
  x = jnp.pad(x, ((0, 0), (0, 2), (0, 2), (0, 0)))
  x = x.reshape(n, tall + 1, 2, 2, wide + 1, 2, 2 * c)

  def three(x: Array, axis: int) -> tuple[Array, Array, Array]:
    x0, x1, x2, _ = _four(x, axis)
    return x0 - x1, x1, x2 - x1

  tiles = [tile for row in three(x, 1) for tile in three(row, 3)]
  return [x.transpose(0, 1, 3, 2, 4).reshape(-1, 4 * c) for x in tiles]


def _sums(a: Array, b: Array) -> tuple[Array, Array, Array]:
  return a, a + b, b


def _output_4(y: Small) -> Matrices:
  """Maps y to nine matrices [tiles, d]."""
  return _each_column_and_row(_sums, _two_by_two(y))


def _filter_4(w: Filter) -> Matrices:
  """Maps w to nine matrices [4c, d]."""
  c, d = w.shape[2:]
  w = w.reshape(2, 2, 2, 2, c, d).transpose(0, 2, 1, 3, 4, 5)
  return _each_column_and_row(_sums, w.reshape(2, 2, 4 * c, d))


# 3x3 with stride 1.


def _input_3(x: Large) -> Matrices:
  """Maps padded images to 16 matrices [tiles, c]."""
  n, height, width, c = x.shape
  x = x.reshape(n, height // 2, 2, width // 2, 2, c)

  def four(x: Array, axis: int) -> tuple[Array, Array, Array, Array]:
    x0, x1, x2, x3 = _four(x, axis)
    return x0 - x2, x1 + x2, x2 - x1, x1 - x3

  tiles = [tile for row in four(x, 1) for tile in four(row, 2)]
  return [x.reshape(-1, c) for x in tiles]


def _output_3(y: Small) -> Matrices:
  """Maps y to 16 matrices [tiles, d]."""
  four = lambda a, b: (a, a + b, a - b, -b)
  return _each_column_and_row(four, _two_by_two(y))


def _filter_3(w: Filter) -> Matrices:
  """Maps w to 16 matrices [c, d]."""
  four = lambda a, b, c: (a, (a + b + c) / 2, (a - b + c) / 2, c)
  return _each_column_and_row(four, w)


ALGORITHMS = {
  (4, 4): Algorithm(_input_4, _output_4, _filter_4, stride=2, min_channels=32),
  (3, 3): Algorithm(
    _input_3,
    _output_3,
    _filter_3,
    stride=1,
    min_channels=64,
    min_tiles=32,
  ),
}
