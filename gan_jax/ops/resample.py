"""Upsampling and downsampling of images by integer factors."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Num


def upsample_nearest(
  x: Float[Array, 'n h w c'], factor: int
) -> Float[Array, 'n H W c']:
  """Upsamples by nearest neighbour: a pixel becomes factor x factor pixels."""
  if factor == 1:
    return x
  n, h, w, c = x.shape
  squares = jnp.broadcast_to(
    x[:, :, None, :, None, :], (n, h, factor, w, factor, c)
  )
  return squares.reshape(n, h * factor, w * factor, c)


def average_pool(
  x: Num[Array, '*n H W c'], factor: int
) -> Num[Array, '*n h w c']:
  """Downsamples by average pooling over squares of factor x factor.

  The result for uint8 is float32. It is exact up to a factor of 256, because
  sums are below 2^24.
  """
  if factor == 1:
    return x
  *n, h, w, c = x.shape
  squares = x.reshape(*n, h // factor, factor, w // factor, factor, c)
  return squares.mean((-4, -2))
