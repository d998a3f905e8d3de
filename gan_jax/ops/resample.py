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


def pixel_shuffle(
  x: Float[Array, 'n h w c'], factor: int
) -> Float[Array, 'n H W d']:
  """Turns channels into pixels: factor^2 channels become one, larger.

  y[i f + a, j f + b, k] = x[i, j, k f^2 + a f + b]: Shi et al. 2016, equation
  4, in the order of PyTorch.
  """
  n, h, w, c = x.shape
  x = x.reshape(n, h, w, c // factor**2, factor, factor)
  x = x.transpose(0, 1, 4, 2, 5, 3)
  return x.reshape(n, h * factor, w * factor, c // factor**2)


def pixel_unshuffle(
  x: Float[Array, 'n H W c'], factor: int
) -> Float[Array, 'n h w d']:
  """Turns squares of pixels into channels: the inverse of `pixel_shuffle`."""
  n, h, w, c = x.shape
  x = x.reshape(n, h // factor, factor, w // factor, factor, c)
  x = x.transpose(0, 1, 3, 5, 2, 4)
  return x.reshape(n, h // factor, w // factor, c * factor**2)
