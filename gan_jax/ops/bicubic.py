"""Bicubic resizing as in MATLAB, Pillow and PyTorch, for published scores.

MATLAB's imresize mirrors the image at its border, Pillow ends the kernel there,
PyTorch repeats the pixel. The cubic of MATLAB and Pillow has a = -1/2 (Keys
1981), that of PyTorch a = -3/4. When the first two reduce an image, the kernel
is stretched, which removes frequencies that the small image cannot hold
(antialiasing).
"""

import functools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

# Pillow resizes uint8 with weights that are whole multiples of 2^-22.
PILLOW_BITS = 22


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


def pillow_resize(
  images: Num[Array, 'n h w c'], size: int
) -> Num[Array, 'n size size c']:
  """Resizes images in [0, 255] to a square, as Pillow's BICUBIC.

  Integers are rounded and clipped after each axis, and are bitwise those of
  Pillow for uint8. The width is resized first, as by the Pillow of published
  scores; Pillow 13 begins with the height of images that are taller than wide.
  Floats are clipped once and not rounded, as by mode 'F' in clean-fid, so that
  they have derivatives.
  """
  rows, columns = (pillow_weights(side, size) for side in images.shape[1:3])
  if jnp.issubdtype(images.dtype, jnp.integer):
    x = _weigh_exactly('nhwc,Ww->nhWc', images, columns)
    return _weigh_exactly('nhwc,Hh->nHwc', x, rows)
  rows, columns = (jnp.asarray(x, images.dtype) for x in (rows, columns))
  x = jnp.einsum('nhwc,Ww->nhWc', images, columns, precision='highest')
  x = jnp.einsum('nhwc,Hh->nHwc', x, rows, precision='highest')
  return jnp.clip(x, 0, 255)


def _weigh_exactly(
  equation: str,
  images: Num[Array, 'n h w c'],
  weights: Float[np.ndarray, 'out size'],
) -> Num[Array, 'n H W c']:
  """Resizes an axis of integers in [0, 255], in the arithmetic of Pillow.

  The sums stay below 2^31: a row of weights has the sum 1, and at most 1/4 in
  absolute value below 0.
  """
  whole = np.copysign(np.floor(np.abs(weights) * 2**PILLOW_BITS + 0.5), weights)
  whole = jnp.asarray(whole, jnp.int32)
  x = jnp.einsum(equation, images.astype(jnp.int32), whole)
  return jnp.clip((x + 2 ** (PILLOW_BITS - 1)) >> PILLOW_BITS, 0, 255)


@functools.lru_cache(maxsize=64)
def pytorch_weights(
  size: int, out: int, scale: float
) -> Float[np.ndarray, 'out size']:
  """Returns the matrix with which PyTorch resizes an axis, not antialiased.

  It is that of `interpolate(mode='bicubic', scale_factor=scale)`: output i is
  at (i + 1/2) / scale - 1/2 of the input, whatever `out` / `size` is.
  """
  centres = (np.arange(out) + 0.5) / scale - 0.5
  positions = np.floor(centres).astype(int)[:, None] + np.arange(-1, 3)
  values = _cubic(centres[:, None] - positions, a=-0.75)
  matrix = np.zeros((out, size))
  at = np.arange(out)[:, None], np.clip(positions, 0, size - 1)
  np.add.at(matrix, at, values)
  return matrix


def _cubic(
  x: Float[np.ndarray, '*s'], a: float = -0.5
) -> Float[np.ndarray, '*s']:
  """Keys' cubic: Keys 1981, equation 15 for a = -1/2."""
  x = np.abs(x)
  near = (a + 2) * x**3 - (a + 3) * x**2 + 1
  far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
  return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))
