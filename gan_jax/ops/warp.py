"""Affine warps of images, with the low-pass filters of a wavelet.

An image is upsampled by 2 with the filter of the symlet sym6, sampled
bilinearly at the transformed positions, and downsampled with the same filter
(Karras et al. 2020, "Training generative adversarial networks with limited
data", appendix B). Beyond its borders the image is mirrored.

Both resamplings are products with constant matrices, which compile fast and run
fast at usual sizes; their cost grows with the cube of the size.
"""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
import numpy as np
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
  fine = _along_both(_upsampling, image)
  # The result before downsampling, with a margin for the filter.
  margin = len(FILTER) // 2
  y = jnp.arange(2 * (height + margin)) + 1.0 - (height + margin)
  x = jnp.arange(2 * (width + margin)) + 1.0 - (width + margin)
  x, y = jnp.meshgrid(x, y)
  at_x = inverse[0, 0] * x + inverse[0, 1] * y + 2 * inverse[0, 2]
  at_y = inverse[1, 0] * x + inverse[1, 1] * y + 2 * inverse[1, 2]
  sampled = _bilinear(fine, at_y + height - 1, at_x + width - 1)
  return _along_both(_downsampling, sampled)


def _along_both(
  matrix_of: Callable[[int], Float[np.ndarray, 'm n']], image: Array
) -> Array:
  """Applies a matrix to the columns and to the rows of an image."""
  multiply = partial(jnp.einsum, precision='highest')  # float32 everywhere
  image = multiply('ij,jkc->ikc', matrix_of(image.shape[0]), image)
  return multiply('lk,ikc->ilc', matrix_of(image.shape[1]), image)


def _upsampling(size: int) -> Float[np.ndarray, 'fine {size}']:
  """Makes the matrix that upsamples an axis by 2.

  The result is one period of the periodically mirrored axis, 4 (size - 1).
  """
  period = 2 * (size - 1)
  matrix = np.zeros((2 * period, size), np.float32)
  for row in range(len(matrix)):
    for tap, value in enumerate(FILTER):
      at = row + len(FILTER) // 2 - 1 - tap  # there is a 0 after each pixel
      if at % 2 == 0:
        source = at // 2 % period
        matrix[row, min(source, period - source)] += 2 * value
  return matrix


def _downsampling(fine: int) -> Float[np.ndarray, 'size {fine}']:
  """Makes the matrix that downsamples an axis by 2 and crops the margin."""
  matrix = np.zeros((fine // 2 - len(FILTER) // 2, fine), np.float32)
  for row, values in enumerate(matrix):
    values[2 * row + 1 : 2 * row + 1 + len(FILTER)] = FILTER
  return matrix


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
