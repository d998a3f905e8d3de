"""Similarity of the images within a set (MS-SSIM)."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from gan_jax.errors import UserError
from gan_jax.metrics.separable import band_matrix, filter_both_axes, planes

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW, SIGMA = 11, 1.5  # pixels
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
MIN_SIZE = 2 ** (len(WEIGHTS) - 1)  # pixels: the last scale has one
BATCH_PIXELS = 2**20  # total pixels of the images compared at once


def ms_ssim(
  images: UInt8[np.ndarray, 'n h w c'], pairs: int = 10_000, seed: int = 0
) -> float:
  """Computes the mean MS-SSIM of random pairs: the lower, the more diverse.

  ms_ssim = l_5^w5 prod_j cs_j^wj over 5 scales, each half the previous one by
  2x2 means (an odd row or column is dropped), in which
  l = (2 m_x m_y + C1) / (m_x^2 + m_y^2 + C1)
  cs = (2 s_xy + C2) / (s_x^2 + s_y^2 + C2)
  are averaged over pixels and channels (at the last scale, their product is),
  and negative means are set to 0. The moments use an 11x11 Gaussian window of
  standard deviation 1.5 at all positions inside the image. For a smaller image,
  the window has the image's size, and the deviation shrinks in proportion.

  Wang et al. 2003, with its weights, K1 = .01, K2 = .03. For samples of GANs:
  Odena et al. 2017, section 4.2 (100 pairs per class), and Karras et al. 2018
  (10,000 pairs).

  Args:
    images: At least 2; a pair consists of different ones.
    pairs: The number of pairs.
    seed: The seed of the pairs.

  Raises:
    UserError: There are fewer than 2 images, or they are smaller than 16
      pixels, which are 1 pixel at the last scale.
  """
  n, height, width, _ = images.shape
  if n < 2 or min(height, width) < MIN_SIZE:
    raise UserError(
      f'{n} image(s) of {height}x{width} pixels: MS-SSIM needs at least 2 '
      f'images, of at least {MIN_SIZE}x{MIN_SIZE} pixels'
    )
  draw = np.random.default_rng(seed)
  first = draw.integers(n, size=pairs)
  second = (first + draw.integers(1, n, size=pairs)) % n
  size = max(1, BATCH_PIXELS // (height * width))
  values = [
    np.asarray(_similarity(images[first[part]], images[second[part]]))
    for part in (slice(i, i + size) for i in range(0, pairs, size))
  ]
  return float(np.concatenate(values).mean(dtype=np.float64))


@jax.jit
def _similarity(
  x: UInt8[Array, 'n h w c'], y: UInt8[Array, 'n h w c']
) -> Float[Array, ' n']:
  """Computes the MS-SSIM of each pair."""
  x, y = planes(x), planes(y)
  value = jnp.ones(len(x))
  for scale, weight in enumerate(WEIGHTS):
    if scale:
      x, y = _average_pool(x), _average_pool(y)
    light, contrast = compare(x, y)
    last = scale == len(WEIGHTS) - 1
    mean = (light * contrast if last else contrast).mean((1, 2, 3))
    value *= jnp.maximum(mean, 0.0) ** weight
  return value


def _average_pool(images: Float[Array, 'n c H W']) -> Float[Array, 'n c h w']:
  """Halves the images by 2x2 means."""
  n, c, h, w = images.shape
  even = images[:, :, : h - h % 2, : w - w % 2]
  return even.reshape(n, c, h // 2, 2, w // 2, 2).mean((3, 5))


def compare(
  x: Float[Array, 'n c H W'], y: Float[Array, 'n c H W']
) -> tuple[Float[Array, 'n c h w'], Float[Array, 'n c h w']]:
  """Computes l and cs of `ms_ssim` at all positions of the window."""
  size = min(WINDOW, *x.shape[2:])
  matrices = [band_matrix(_gaussian(size), side) for side in x.shape[2:]]
  window = lambda images: filter_both_axes(images, *matrices)
  # Moments about middle grey, to reduce the rounding error of differences.
  x, y = x - 127.5, y - 127.5
  mean_x, mean_y = window(x), window(y)
  variances = window(x * x + y * y) - mean_x**2 - mean_y**2
  covariance = window(x * y) - mean_x * mean_y
  mean_x, mean_y = mean_x + 127.5, mean_y + 127.5
  light = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
  return light, (2 * covariance + C2) / (variances + C2)


def _gaussian(size: int) -> tuple[float, ...]:
  """Makes a Gaussian window; a size of 11 has a standard deviation of 1.5."""
  positions = np.arange(size) - (size - 1) / 2
  taps = np.exp(-((positions / (SIGMA * size / WINDOW)) ** 2) / 2)
  return tuple((taps / taps.sum()).tolist())
