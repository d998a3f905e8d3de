"""Scores of single images against their targets: PSNR, SSIM, feature distance.

As published for super-resolution: on the luma channel, without the border that
the factor of the network makes unreliable. Each returns one value per image;
the score of a set is their mean.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from gan_jax.errors import UserError
from gan_jax.metrics.separable import planes
from gan_jax.metrics.similarity import WINDOW, compare
from gan_jax.ops.bicubic import imresize

Images = UInt8[np.ndarray, 'n h w c']
# Of the same shape; checked, for an error that a user understands.
Targets = UInt8[np.ndarray, 'm H W d']

# Weights of R, G and B in luma, from 16 to 235: ITU-R BT.601, as MATLAB's
# rgb2ycbcr.
MAX_PSNR = 100.0  # dB, of equal images in means
LUMA = np.array([65.481, 128.553, 24.966]) / 255


def psnr(
  images: Images, targets: Targets, border: int = 0, luma: bool = True
) -> Float[np.ndarray, ' n']:
  """Computes the peak signal-to-noise ratio of each image, in dB.

  20 log10(255 / sqrt(mean squared difference)); infinite for equal images.

  Args:
    images, targets: The images, and what they should be.
    border: Number of pixels of each side that are left out; by convention, the
      factor of super-resolution.
    luma: Whether to compare the unrounded luma of RGB images instead of the
      channels.

  Raises:
    UserError: The shapes differ, or the images are smaller than the border.
  """
  x, y = _prepare(images, targets, border, luma, smallest=1)
  with np.errstate(divide='ignore'):
    return 20 * np.log10(255 / np.sqrt(np.mean((x - y) ** 2, axis=(1, 2, 3))))


def mean_psnr(images: Images, targets: Targets, border: int = 0) -> float:
  """Averages the PSNR of a set; that of equal images counts as MAX_PSNR."""
  return float(np.minimum(psnr(images, targets, border), MAX_PSNR).mean())


def resize(images: Images, scale: float | int) -> UInt8[np.ndarray, 'n H W c']:
  """Resizes images by MATLAB's bicubic filter, to 8 bits.

  It makes the small images of super-resolution, and the baseline of its scores.
  """
  resized = imresize(jnp.asarray(images, jnp.float32), scale)
  return np.clip(np.rint(np.asarray(resized)), 0, 255).astype(np.uint8)


def ssim(
  images: Images, targets: Targets, border: int = 0, luma: bool = True
) -> Float[np.ndarray, ' n']:
  """Computes the structural similarity of each image: 1 for equal images.

  The mean over pixels and channels of l cs; see `similarity.ms_ssim`, of which
  it is one scale. Wang et al. 2004, equation 13, with an 11x11 Gaussian window
  at all positions inside the image.

  Args:
    Others: See `psnr`.

  Raises:
    UserError: The shapes differ, or fewer than 11x11 pixels are left.
  """
  x, y = _prepare(images, targets, border, luma, smallest=WINDOW)
  # One image at a time: photographs are large.
  return np.array(
    [float(_ssim(x[i : i + 1], y[i : i + 1])) for i in range(len(x))]
  )


@jax.jit
def _ssim(x: Array, y: Array) -> Float[Array, '']:
  light, contrast = compare(planes(x), planes(y))
  return (light * contrast).mean()


def feature_distance(
  features: Float[np.ndarray, 'n d'], targets: Float[np.ndarray, 'n d']
) -> Float[np.ndarray, ' n']:
  """Computes the distance of each image from its target, in features.

  |f / |f| - g / |g||^2, from 0 to 4. It is the distance of Zhang et al. 2018
  (LPIPS), equation 1, for one layer with one position, and without weights that
  are learned from human judgements.
  """
  unit = lambda x: x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-10)
  return np.sum((unit(features) - unit(targets)) ** 2, axis=1)


def _prepare(
  images: Images, targets: Targets, border: int, luma: bool, smallest: int
) -> tuple[Float[np.ndarray, 'n a b e'], Float[np.ndarray, 'n a b e']]:
  """Converts both sets to float64 without their border."""
  if images.shape != targets.shape:
    raise UserError(
      f'the images are {images.shape} and the targets {targets.shape}, but '
      'they must have one shape'
    )
  if min(images.shape[1:3]) < smallest + 2 * border:
    raise UserError(
      f'images of {images.shape[1]}x{images.shape[2]} pixels are too small: '
      f'at least {smallest}x{smallest} must be left inside a border of {border}'
    )
  prepared = []
  for x in (images, targets):
    x = x[:, border : x.shape[1] - border, border : x.shape[2] - border]
    x = x.astype(np.float64)
    if luma and x.shape[3] == 3:
      x = x @ LUMA[:, None] + 16
    prepared.append(x)
  return prepared[0], prepared[1]
