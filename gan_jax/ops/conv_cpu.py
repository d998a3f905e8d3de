"""The three convolutions on CPUs.

XLA has a fast convolution for CPUs, but inside a loop (such as the scan of a
dispatch) only for the layout NHWC, HWIO, NHWC. The transposes that XLA derives
have other layouts, so they are written here as convolutions of transposed
arrays. Winograd's algorithm is used where it applies.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from gan_jax.ops import conv_xla, winograd
from gan_jax.ops.window import LAYOUT, Window


def conv(
  window: Window, x: Float[Array, 'n H W c'], w: Float[Array, 'kh kw c d']
) -> Float[Array, 'n h w d']:
  """Computes `ops.conv`."""
  if winograd.applies(window, w.shape[2:], w.dtype):
    return winograd.conv(x, w)
  return conv_xla.conv(window, x, w)


def conv_transpose(
  window: Window, y: Float[Array, 'n h w d'], w: Float[Array, 'kh kw c d']
) -> Float[Array, 'n H W c']:
  """Computes `ops.conv_transpose`: dilated y, convolved with the flipped w."""
  if winograd.applies(window, w.shape[2:], w.dtype):
    return winograd.conv_transpose(y, w)
  padding = []
  for axis in (0, 1):
    first = window.kernel[axis] - 1 - window.padding[axis][0]
    extent = window.stride * (y.shape[1 + axis] - 1) + 1
    last = window.size[axis] + window.kernel[axis] - 1 - extent - first
    padding.append((first, last))
  return lax.conv_general_dilated(
    y,
    jnp.flip(w, (0, 1)).swapaxes(2, 3),
    (1, 1),
    padding,
    lhs_dilation=(window.stride,) * 2,
    dimension_numbers=LAYOUT,
  )


def filter_grad(
  window: Window, x: Float[Array, 'n H W c'], y: Float[Array, 'n h w d']
) -> Float[Array, 'kh kw c d']:
  """Computes `ops.filter_grad`: x's channels are the batch, y is the filter."""
  if winograd.applies(window, (x.shape[-1], y.shape[-1]), x.dtype):
    return winograd.filter_grad(x, y)
  padding = []
  for axis in (0, 1):
    first = window.padding[axis][0]
    extent = window.stride * (y.shape[1 + axis] - 1) + 1
    last = window.kernel[axis] - 1 + extent - window.size[axis] - first
    padding.append((first, last))
  w = lax.conv_general_dilated(
    x.transpose(3, 1, 2, 0),
    y.transpose(1, 2, 0, 3),
    (1, 1),
    padding,
    rhs_dilation=(window.stride,) * 2,
    dimension_numbers=LAYOUT,
  )
  return w.transpose(1, 2, 0, 3)
