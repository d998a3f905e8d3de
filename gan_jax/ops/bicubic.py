"""Bicubic resizing as MATLAB's imresize, which published PSNRs assume.

Unlike `jax.image.resize`, it mirrors the image at its border, and its cubic has
a = -1/2 (Keys 1981). When it reduces an image, the kernel is stretched, which
removes frequencies that the small image cannot hold (antialiasing).
"""

import functools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def imresize(
  images: Float[Array, 'n h w c'], scale: float | int
) -> Float[Array, 'n H W c']:
  """Resizes images by a factor along both axes, without rounding or clipping.

  The size is ceil(scale * size). Pixel centres are at half-integers: output i
  is at (i + 1/2) / scale - 1/2 of the input.

  Args:
    images: Float images of any range.
    scale: 1/4 makes images a quarter as large, 4 four times as large.
  """
  height, width = images.shape[1:3]
  exact = lambda x: jnp.asarray(x, images.dtype)
  return jnp.einsum(
    'nhwc,Hh,Ww->nHWc',
    images,
    exact(weights(height, scale)),
    exact(weights(width, scale)),
    precision='highest',
  )


@functools.lru_cache(maxsize=64)
def weights(size: int, scale: float | int) -> Float[np.ndarray, 'out size']:
  """Returns the matrix that resizes an axis of `size` pixels."""
  out = math.ceil(size * scale)
  stretch = min(float(scale), 1.0)
  centres = (np.arange(out) + 0.5) / scale - 0.5
  taps = math.ceil(4 / stretch) + 2
  first = np.floor(centres - 2 / stretch).astype(int)
  positions = first[:, None] + np.arange(taps)
  values = _cubic(stretch * (centres[:, None] - positions))
  values /= values.sum(1, keepdims=True)
  # Mirrored pixels: ... 1 0 | 0 1 ... size-1 | size-1 size-2 ...
  positions %= 2 * size
  positions = np.where(positions < size, positions, 2 * size - 1 - positions)
  matrix = np.zeros((out, size))
  np.add.at(matrix, (np.arange(out)[:, None], positions), values)
  return matrix


@functools.lru_cache(maxsize=64)
def pillow_weights(size: int, out: int) -> Float[np.ndarray, 'out size']:
  """Returns the matrix with which Pillow resizes an axis, BICUBIC.

  Unlike `weights`, the kernel ends at the border of the image.
  """
  scale = size / out
  stretch = max(scale, 1.0)
  centres = (np.arange(out) + 0.5) * scale
  first = np.maximum(np.floor(centres - 2 * stretch + 0.5), 0)
  last = np.minimum(np.floor(centres + 2 * stretch + 0.5), size)
  positions = np.arange(size)
  inside = (positions >= first[:, None]) & (positions < last[:, None])
  values = _cubic((positions + 0.5 - centres[:, None]) / stretch) * inside
  return values / values.sum(1, keepdims=True)


def _cubic(x: Float[np.ndarray, '*s']) -> Float[np.ndarray, '*s']:
  """Keys' cubic of a = -1/2: Keys 1981, equation 15."""
  x = np.abs(x)
  near = 1.5 * x**3 - 2.5 * x**2 + 1
  far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
  return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))
