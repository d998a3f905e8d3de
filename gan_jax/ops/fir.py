"""Upsampling, FIR filtering and downsampling of images, in one operation.

Low-pass filters avoid aliasing where a network changes the resolution (Karras
et al. 2020, StyleGAN2, section 4.2). The filter is separable. Each axis is a
sum of a few scaled slices, which XLA fuses on every platform, and whose
derivatives of any order are such sums again. Zeros that upsampling would insert
are never multiplied.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# The binomial filter of StyleGAN2.
TAPS = (1.0, 3.0, 3.0, 1.0)


def upfirdn(
  x: Float[Array, 'n h w c'],
  taps: Sequence[float] = TAPS,
  *,
  up: int = 1,
  down: int = 1,
  padding: tuple[int, int] = (0, 0),
  gain: float = 1.0,
) -> Float[Array, 'n H W c']:
  """Upsamples, pads, filters and downsamples images.

  In this order, along both axes: insert up - 1 zeros after each pixel; pad with
  zeros (crop, if negative); convolve with the taps, normalized to sum 1, where
  they lie within the image; keep each `down`-th pixel.

  Args:
    x: Images.
    taps: The filter along one axis.
    up, down: Integer factors.
    padding: Zeros before and after the upsampled image, for both axes.
    gain: Multiplies the result. up^2 keeps the brightness.
  """
  scale = gain**0.5 / sum(taps)
  taps = [tap * scale for tap in taps]
  for axis in (2, 1):
    x = _along(x, axis, taps, up, down, padding)
  return x


def upsample(
  x: Float[Array, 'n h w c'], taps: Sequence[float] = TAPS
) -> Float[Array, 'n H W c']:
  """Upsamples images by 2 with a low-pass filter."""
  padding = (len(taps) + 1) // 2, (len(taps) - 2) // 2
  return upfirdn(x, taps, up=2, padding=padding, gain=4.0)


def downsample(
  x: Float[Array, 'n H W c'], taps: Sequence[float] = TAPS
) -> Float[Array, 'n h w c']:
  """Downsamples images by 2 with a low-pass filter."""
  padding = (len(taps) - 1) // 2, (len(taps) - 2) // 2
  return upfirdn(x, taps, down=2, padding=padding)


def _along(
  x: Array,
  axis: int,
  taps: Sequence[float],
  up: int,
  down: int,
  padding: tuple[int, int],
) -> Array:
  """Applies the operation along one axis."""
  before, after = padding
  size = x.shape[axis]
  filtered = size * up + before + after - len(taps) + 1
  outputs = (filtered - 1) // down + 1
  # Output j takes pixel (down j + k - before) / up with tap k of the flipped
  # filter, if that is an integer. Its phase j % up decides which taps do.
  phases = []
  for phase in range(min(up, outputs)):
    count = (outputs - phase - 1) // up + 1
    terms = []
    for k, tap in enumerate(reversed(taps)):
      first = down * phase + k - before
      if first % up == 0:
        terms.append((first // up, tap))
    phases.append(_sum_of_slices(x, axis, terms, down, count))
  if up == 1:
    return phases[0]
  # Interleaves the phases; the shorter ones are padded, and cut again.
  longest = phases[0].shape[axis]
  grow = lambda y: _pad(y, axis, 0, longest - y.shape[axis])
  stacked = jnp.stack([grow(y) for y in phases], axis + 1)
  shape = *x.shape[:axis], longest * len(phases), *x.shape[axis + 1 :]
  return lax.slice_in_dim(stacked.reshape(shape), 0, outputs, axis=axis)


def _sum_of_slices(
  x: Array,
  axis: int,
  terms: Sequence[tuple[int, float]],
  stride: int,
  count: int,
) -> Array:
  """Computes y[i] = sum over (first, tap) of tap x[first + stride i].

  Pixels outside of x are 0.
  """
  shape = *x.shape[:axis], count, *x.shape[axis + 1 :]
  if not terms:
    return jnp.zeros(shape, x.dtype)
  low = min(first for first, _ in terms)
  high = max(first for first, _ in terms) + stride * (count - 1) + 1
  x = _pad(x, axis, -low, high - x.shape[axis])
  total = None
  for first, tap in terms:
    start = first - low
    stop = start + stride * (count - 1) + 1
    part = tap * lax.slice_in_dim(x, start, stop, stride, axis)
    total = part if total is None else total + part
  return total


def _pad(x: Array, axis: int, before: int, after: int) -> Array:
  """Pads with zeros along an axis; crops, where negative."""
  widths = [(0, 0, 0)] * x.ndim
  widths[axis] = (before, after, 0)
  return lax.pad(x, jnp.zeros((), x.dtype), widths)
