"""Upsampling and downsampling of images by integer factors."""

import jax.numpy as jnp
from jax import lax
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


def upsample_bilinear(
  x: Float[Array, 'n h w c'],
) -> Float[Array, 'n H W c']:
  """Upsamples by 2 with the filter [1, 3, 3, 1] / 4 along both axes.

  Zeros lie beyond the border. Zhang 2019; Karras et al. 2019 (StyleGAN).
  """
  for axis in (1, 2):
    before, after = _neighbors(x, axis)
    even, odd = (0.25 * y + 0.75 * x for y in (before, after))
    pairs = jnp.stack([even, odd], axis + 1)
    x = pairs.reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :])
  return x


def downsample_bilinear(
  x: Float[Array, 'n H W c'],
) -> Float[Array, 'n h w c']:
  """Downsamples by 2 with the filter [1, 3, 3, 1] / 8 along both axes.

  It is the transpose of `upsample_bilinear`, divided by 4.
  """
  for axis in (1, 2):
    half = x.shape[axis] // 2
    pairs = x.reshape(*x.shape[:axis], half, 2, *x.shape[axis + 1 :])
    even, odd = (lax.index_in_dim(pairs, i, axis + 1, False) for i in (0, 1))
    before, after = _neighbors(odd, axis)[0], _neighbors(even, axis)[1]
    x = 0.125 * (before + after) + 0.375 * (even + odd)
  return x


def _neighbors(x: Array, axis: int) -> tuple[Array, Array]:
  """Returns x[i - 1] and x[i + 1] along an axis, with zeros at its ends."""
  pad = lambda *sides: jnp.pad(
    x, [sides if i == axis else (0, 0) for i in range(x.ndim)]
  )
  size = x.shape[axis]
  before = lax.slice_in_dim(pad(1, 0), 0, size, axis=axis)
  return before, lax.slice_in_dim(pad(0, 1), 1, size + 1, axis=axis)


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
