"""The three convolutions as XLA derives them, for GPUs and TPUs."""

import jax
from jax import lax
from jaxtyping import Array, Float

from gan_jax.ops.window import LAYOUT, Window


def conv(
  window: Window, x: Float[Array, 'n H W c'], w: Float[Array, 'kh kw i d']
) -> Float[Array, 'n h w d']:
  """Computes `ops.conv`."""
  return lax.conv_general_dilated(
    x,
    w,
    (window.stride,) * 2,
    window.padding,
    dimension_numbers=LAYOUT,
    feature_group_count=window.groups,
  )


def conv_transpose(
  window: Window, y: Float[Array, 'n h w d'], w: Float[Array, 'kh kw i d']
) -> Float[Array, 'n H W c']:
  """Computes `ops.conv_transpose`."""
  shape = y.shape[0], *window.size, window.groups * w.shape[2]
  x = jax.ShapeDtypeStruct(shape, y.dtype)
  return jax.linear_transpose(lambda x: conv(window, x, w), x)(y)[0]


def filter_grad(
  window: Window, x: Float[Array, 'n H W c'], y: Float[Array, 'n h w d']
) -> Float[Array, 'kh kw i d']:
  """Computes `ops.filter_grad`."""
  shape = *window.kernel, x.shape[-1] // window.groups, y.shape[-1]
  w = jax.ShapeDtypeStruct(shape, x.dtype)
  return jax.linear_transpose(lambda w: conv(window, x, w), w)(y)[0]
