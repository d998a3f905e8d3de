"""Affine warps of images, with the low-pass filters of a wavelet.

An image is upsampled by 2 with the filter of the symlet sym6, sampled
bilinearly at the transformed positions, and downsampled with the same filter
(Karras et al. 2020, "Training generative adversarial networks with limited
data", appendix B). Beyond its borders the image is mirrored.

All sums are written as shifted additions, so that they are computed in float32
on every platform: matrix units would round the images to fewer bits.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# The low-pass decomposition filter of sym6 (Daubechies 1992, "Ten lectures on
# wavelets", table 6.3), normalized to a sum of 1.
_SYM6 = (
  0.015404109327027373, 0.0034907120842174702, -0.11799011114819057,
  -0.048311742585633, 0.4910559419267466, 0.787641141030194,
  0.3379294217276218, -0.07263752278646252, -0.021060292512300564,
  0.04472490177066578, 0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip
FILTER = tuple(tap / sum(_SYM6) for tap in _SYM6)
_HALF = len(FILTER) // 2


def warp(
  image: Float[Array, 'h w c'], inverse: Float[Array, '3 3']
) -> Float[Array, 'h w c']:
  """Transforms an image; differentiable to any order with respect to it.

  Args:
    image: An image of at least 3 x 3 pixels.
    inverse: Maps a position (x, y, 1) in the result to one in the image, in
      pixels from the centre; x goes to the right, y down. A position further
      than a whole image away from the borders is 0.
  """
  height, width, _ = image.shape
  fine = _upsample(_upsample(image, 0), 1)
  # The result before downsampling, with a margin for the filter.
  y = jnp.arange(2 * (height + _HALF)) + 0.5 - (height + _HALF)
  x = jnp.arange(2 * (width + _HALF)) + 0.5 - (width + _HALF)
  x, y = jnp.meshgrid(x + 0.5, y + 0.5)
  at_x = inverse[0, 0] * x + inverse[0, 1] * y + 2 * inverse[0, 2]
  at_y = inverse[1, 0] * x + inverse[1, 1] * y + 2 * inverse[1, 2]
  sampled = _bilinear(fine, at_y + height - 1, at_x + width - 1)
  return _downsample(_downsample(sampled, 0), 1)


def _upsample(x: Array, axis: int) -> Array:
  """Upsamples an axis by 2: one period of the periodically mirrored image."""
  x = jnp.moveaxis(x, axis, 0)
  period = jnp.concatenate([x, x[-2:0:-1]])
  size = len(period)
  pad = _HALF // 2
  padded = jnp.pad(period, [(pad, pad)] + [(0, 0)] * (x.ndim - 1), mode='wrap')

  def phase(first: int, taps: tuple[float, ...]) -> Array:
    shifted = (padded[first - j : first - j + size] for j in range(_HALF))
    return sum(2 * t * s for t, s in zip(taps, shifted, strict=True))

  even, odd = phase(2 * pad - 1, FILTER[1::2]), phase(2 * pad, FILTER[::2])
  fine = jnp.stack([even, odd], 1).reshape(2 * size, *x.shape[1:])
  return jnp.moveaxis(fine, 0, axis)


def _downsample(x: Array, axis: int) -> Array:
  """Downsamples an axis by 2, without the margin of `warp`."""
  x = jnp.moveaxis(x, axis, 0)
  even, odd = x[::2], x[1::2]
  size = len(even) - _HALF
  total = sum(
    FILTER[2 * j] * odd[j : j + size]
    + FILTER[2 * j + 1] * even[j + 1 : j + 1 + size]
    for j in range(_HALF)
  )
  return jnp.moveaxis(total, 0, axis)


def _bilinear(
  fine: Float[Array, 'H W c'],
  y: Float[Array, 'a b'],
  x: Float[Array, 'a b'],
) -> Float[Array, 'a b c']:
  """Samples a periodic image; 0 outside the image and its mirror images."""
  rows, columns, channels = fine.shape
  flat = fine.reshape(-1, channels)
  total = jnp.zeros((*y.shape, channels), fine.dtype)
  for row, row_weight in _neighbours(y, rows):
    for column, column_weight in _neighbours(x, columns):
      index = (row % rows) * columns + column % columns
      values = flat.at[index].get(mode='promise_in_bounds')
      total += (row_weight * column_weight)[..., None] * values
  return total


def _neighbours(
  at: Float[Array, 'a b'], period: int
) -> list[tuple[Int[Array, 'a b'], Float[Array, 'a b']]]:
  """Returns both integer neighbours of positions, with their weights.

  The upsampled image has positions 0 to period / 2 + 1, and its mirror images
  on either side have period / 2 positions each.
  """
  low = jnp.floor(at)
  found = []
  for neighbour, weight in ((low, 1 - (at - low)), (low + 1, at - low)):
    inside = (neighbour >= -period / 2) & (neighbour < period + 2)
    found.append((neighbour.astype(jnp.int32), jnp.where(inside, weight, 0.0)))
  return found
