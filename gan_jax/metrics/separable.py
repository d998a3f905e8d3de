"""Separable filters of images, as products of matrices.

XLA on CPUs fuses a filter's two axes into one, and so takes every product 11
times instead of once; its convolutions of single channels are slower yet.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, UInt8


def planes(images: UInt8[Array, 'n h w c']) -> Float[Array, 'n c h w']:
  """0 to 255, in float32, each channel by itself."""
  return images.astype(jnp.float32).transpose(0, 3, 1, 2)


def band(
  taps: Sequence[float], size: int
) -> Float32[np.ndarray, 'inside size']:
  """Correlates an axis of that size with the taps, wherever they lie inside."""
  rows = size - len(taps) + 1
  matrix = np.zeros((rows, size), np.float32)
  for i, tap in enumerate(taps):
    matrix[range(rows), range(i, i + rows)] = tap
  return matrix


def both_axes(
  images: Float[Array, 'n c h w'],
  rows: Float32[np.ndarray, 'H h'],
  columns: Float32[np.ndarray, 'W w'],
) -> Float[Array, 'n c H W']:
  """rows @ image @ columns^T, in float32 on accelerators too."""
  for matrix in (columns, rows):
    images = jnp.matmul(images, matrix.T, precision='highest')
    images = images.swapaxes(2, 3)
  return images
