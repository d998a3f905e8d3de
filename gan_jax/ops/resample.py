"""Images made larger and smaller by whole factors."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Num


def upsample_nearest(
  x: Float[Array, 'n h w c'], factor: int
) -> Float[Array, 'n H W c']:
  """Each pixel as a square of factor x factor."""
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
  """The mean of each square of factor x factor: average pooling.

  Of uint8 it is float32, and exact to 256x256: sums below 2^24.
  """
  if factor == 1:
    return x
  *n, h, w, c = x.shape
  squares = x.reshape(*n, h // factor, factor, w // factor, factor, c)
  return squares.mean((-4, -2))
