"""Separable image filters as matrix products.

XLA on CPUs fuses the filters of the two axes and computes each product 11
times; its convolutions of single channels are slower still.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Num


def planes(images: Num[Array, 'n h w c']) -> Float[Array, 'n c h w']:
  """Converts images to float32 planes, one per channel, from 0 to 255."""
  return images.astype(jnp.float32).transpose(0, 3, 1, 2)


def band_matrix(
  taps: Sequence[float], size: int
) -> Float32[np.ndarray, 'inside size']:
  """Makes the matrix that correlates an axis with the taps, without padding."""
  rows = size - len(taps) + 1
  matrix = np.zeros((rows, size), np.float32)
  for i, tap in enumerate(taps):
    matrix[range(rows), range(i, i + rows)] = tap
  return matrix


def filter_both_axes(
  images: Float[Array, 'n c h w'],
  rows: Float32[np.ndarray, 'H h'],
  columns: Float32[np.ndarray, 'W w'],
) -> Float[Array, 'n c H W']:
  """Computes rows @ image @ columns^T, in float32 on accelerators too."""
  for matrix in (columns, rows):
    images = jnp.matmul(images, matrix.T, precision='highest')
    images = images.swapaxes(2, 3)
  return images
