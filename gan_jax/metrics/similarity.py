"""How alike the images of a set are."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from gan_jax.errors import UserError
from gan_jax.metrics.separable import band, both_axes, planes

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW, SIGMA = 11, 1.5  # pixels
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
SMALLEST = 2 ** (len(WEIGHTS) - 1)  # pixels: one is left at the last level
BATCH_PIXELS = 2**20  # of the images that are compared at a time


def ms_ssim(
  images: UInt8[np.ndarray, 'n h w c'], pairs: int = 10_000, seed: int = 0
) -> float:
  """The mean MS-SSIM of random pairs of a set: the lower, the more diverse.

  ms_ssim = l_5^w5 prod_j cs_j^wj over 5 scales, each half of the one before by
  the mean of 2x2 (an odd row or column is left out), in which
  l = (2 m_x m_y + C1) / (m_x^2 + m_y^2 + C1)
  cs = (2 s_xy + C2) / (s_x^2 + s_y^2 + C2)
  are averaged over pixels and channels, at the last scale as their product,
  and what is below 0 is set to 0 before it is raised. The moments are of an
  11x11 Gaussian window of deviation 1.5 wherever it lies inside, or of one as
  large as the image, its deviation in proportion, where that is smaller.

  Wang et al. 2003, with its weights, K1 = .01, K2 = .03; of GANs' samples:
  Odena et al. 2017, section 4.2 (100 pairs of a class), and Karras et al. 2018
  (10,000 pairs).

  Args:
    images: At least 2; a pair is of different ones.
    pairs: How many.
    seed: Of the pairs.

  Raises:
    UserError: There are fewer than 2 images, or they are smaller than 16
      pixels, of which the last scale has 1.
  """
  n, height, width, _ = images.shape
  if n < 2 or min(height, width) < SMALLEST:
    raise UserError(
      f'{n} image(s) of {height}x{width} pixels were given: MS-SSIM takes 2 or '
      f'more, of {SMALLEST}x{SMALLEST} or more'
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
  """MS-SSIM of each pair."""
  x, y = planes(x), planes(y)
  value = jnp.ones(len(x))
  for scale, weight in enumerate(WEIGHTS):
    if scale:
      x, y = _halved(x), _halved(y)
    light, contrast = _compare(x, y)
    last = scale == len(WEIGHTS) - 1
    mean = (light * contrast if last else contrast).mean((1, 2, 3))
    value *= jnp.maximum(mean, 0.0) ** weight
  return value


def _halved(images: Float[Array, 'n c H W']) -> Float[Array, 'n c h w']:
  n, c, h, w = images.shape
  even = images[:, :, : h - h % 2, : w - w % 2]
  return even.reshape(n, c, h // 2, 2, w // 2, 2).mean((3, 5))


def _compare(
  x: Float[Array, 'n c H W'], y: Float[Array, 'n c H W']
) -> tuple[Float[Array, 'n c h w'], Float[Array, 'n c h w']]:
  """l and cs, wherever the window lies inside."""
  size = min(WINDOW, *x.shape[2:])
  matrices = [band(_gaussian(size), side) for side in x.shape[2:]]
  window = lambda images: both_axes(images, *matrices)
  # Moments about the middle grey: of their differences less is lost.
  x, y = x - 127.5, y - 127.5
  mean_x, mean_y = window(x), window(y)
  variances = window(x * x + y * y) - mean_x**2 - mean_y**2
  covariance = window(x * y) - mean_x * mean_y
  mean_x, mean_y = mean_x + 127.5, mean_y + 127.5
  light = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
  return light, (2 * covariance + C2) / (variances + C2)


def _gaussian(size: int) -> tuple[float, ...]:
  """The window of so many pixels; 11 have a deviation of 1.5."""
  places = np.arange(size) - (size - 1) / 2
  taps = np.exp(-((places / (SIGMA * size / WINDOW)) ** 2) / 2)
  return tuple((taps / taps.sum()).tolist())
