"""The three convolutions on CPUs.

XLA has a fast convolution for CPUs, but inside a loop (such as the scan of a
dispatch) only for the layout NHWC, HWIO, NHWC. The transposes that XLA derives
have other layouts, so they are written here as convolutions of transposed
arrays. Winograd's algorithm is used where it applies. Groups of channels are
convolved one after the other: XLA's grouped convolutions are up to 50 times as
slow in their derivatives.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from gan_jax.ops import winograd
from gan_jax.ops.window import LAYOUT, Window

# With fewer rows of the result, one more costs too much.
MIN_ROWS = 4


def conv(
  window: Window, x: Float[Array, 'n H W c'], w: Float[Array, 'kh kw i d']
) -> Float[Array, 'n h w d']:
  """Computes `ops.conv`."""
  if window.groups > 1:
    parts = _split(x, window), _split(w, window)
    return _join(_each_group(conv, window, *parts))
  if winograd.applies(window, x.shape[0], w.shape[2:], w.dtype):
    return winograd.conv(window, x, w)
  return _convolve(x, w, window.padding, stride=window.stride)


def conv_transpose(
  window: Window, y: Float[Array, 'n h w d'], w: Float[Array, 'kh kw i d']
) -> Float[Array, 'n H W c']:
  """Computes `ops.conv_transpose`: dilated y, convolved with the flipped w."""
  if window.groups > 1:
    parts = _split(y, window), _split(w, window)
    return _join(_each_group(conv_transpose, window, *parts))
  if winograd.applies(window, y.shape[0], w.shape[2:], w.dtype):
    return winograd.conv_transpose(window, y, w)
  padding = []
  for axis in (0, 1):
    first = window.kernel[axis] - 1 - window.padding[axis][0]
    extent = window.stride * (y.shape[1 + axis] - 1) + 1
    last = window.size[axis] + window.kernel[axis] - 1 - extent - first
    padding.append((first, last))
  flipped = jnp.flip(w, (0, 1)).swapaxes(2, 3)
  return _convolve(y, flipped, padding, x_dilation=window.stride)


def filter_grad(
  window: Window, x: Float[Array, 'n H W c'], y: Float[Array, 'n h w d']
) -> Float[Array, 'kh kw i d']:
  """Computes `ops.filter_grad`: x's channels are the batch, y is the filter."""
  if window.groups > 1:
    parts = _split(x, window), _split(y, window)
    return _join(_each_group(filter_grad, window, *parts))
  channels = x.shape[-1], y.shape[-1]
  if winograd.applies(window, x.shape[0], channels, x.dtype):
    return winograd.filter_grad(window, x, y)
  padding = []
  for axis in (0, 1):
    first = window.padding[axis][0]
    extent = window.stride * (y.shape[1 + axis] - 1) + 1
    last = window.kernel[axis] - 1 + extent - window.size[axis] - first
    padding.append((first, last))
  w = _convolve(
    x.transpose(3, 1, 2, 0),
    y.transpose(1, 2, 0, 3),
    padding,
    w_dilation=window.stride,
  )
  return w.transpose(1, 2, 0, 3)


def _convolve(
  x: Float[Array, 'n H W c'],
  w: Float[Array, 'kh kw c d'],
  padding: Sequence[tuple[int, int]],
  stride: int = 1,
  x_dilation: int = 1,
  w_dilation: int = 1,
) -> Float[Array, 'n h w d']:
  """Calls XLA's convolution.

  Without any padding XLA is up to 30 times as slow, so that a row is added, and
  its result left out. (A kernel of one pixel is a product of matrices.)
  """
  height, kernel = (
    dilation * (n - 1) + 1
    for dilation, n in ((x_dilation, x.shape[1]), (w_dilation, w.shape[0]))
  )
  rows = (height - kernel) // stride + 1
  padded = any(before or after for before, after in padding)
  add_row = not padded and kernel > 1 and rows >= MIN_ROWS
  y = lax.conv_general_dilated(
    x,
    w,
    (stride,) * 2,
    ((0, 1), (0, 0)) if add_row else padding,
    lhs_dilation=(x_dilation,) * 2,
    rhs_dilation=(w_dilation,) * 2,
    dimension_numbers=LAYOUT,
  )
  return y[:, :rows] if add_row else y


def _each_group(
  function: Callable[..., Array],
  window: Window,
  a: Float[Array, 'g ...'],
  b: Float[Array, 'g ...'],
) -> Float[Array, 'g ...']:
  """Applies one of the three functions to each group."""
  window = window._replace(groups=1)
  return lax.map(lambda parts: function(window, *parts), (a, b))


def _split(x: Float[Array, '... c'], window: Window) -> Float[Array, 'g ... i']:
  """Makes the groups of the last axis the first axis."""
  return jnp.moveaxis(x.reshape(*x.shape[:-1], window.groups, -1), -2, 0)


def _join(x: Float[Array, 'g ... i']) -> Float[Array, '... c']:
  """Reverses `_split`."""
  x = jnp.moveaxis(x, 0, -2)
  return x.reshape(*x.shape[:-2], -1)
