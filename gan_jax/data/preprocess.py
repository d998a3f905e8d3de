"""Preprocessing of any image to the square uint8 image that a network takes."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from gan_jax.data.source import DataSpec
from gan_jax.errors import UserError

# The version of the conversion to uint8 of image files (here, and of the JPEG
# drafts in decode.py) and of samples (ops.pixels.quantize). Raise it by one
# when pixels change on purpose: scores of different versions are not
# comparable.
VERSION = 1

# Number of channels -> PIL's mode.
MODES = {1: 'L', 3: 'RGB'}


def preprocess(image: Image.Image, spec: DataSpec) -> np.ndarray:
  """Converts an image to uint8 [resolution, resolution, channels].

  Converts it as `standardize` does, crops the central square of `crop` pixels
  (None: the largest one), and resizes it once, with the anti-aliased Lanczos
  filter.

  Raises:
    UserError: The image is smaller than the crop.
  """
  image = standardize(image, spec.channels)
  size = spec.crop or min(image.size)
  if size > min(image.size):
    raise UserError(
      f'config.data.crop={size} is larger than an image of '
      f'{image.width}x{image.height}: set it to {min(image.size)} or less'
    )
  left, top = (image.width - size) // 2, (image.height - size) // 2
  image = image.crop((left, top, left + size, top + size))
  resolution = spec.resolution
  if size != resolution:
    image = image.resize((resolution, resolution), Image.Resampling.LANCZOS)
  return to_array(image)


def standardize(image: Image.Image, channels: int) -> Image.Image:
  """Converts an image of any size to grey or RGB.

  Rotates it by its EXIF data, and composites transparency on white.
  """
  image = ImageOps.exif_transpose(image)
  if image.mode.startswith('I'):  # PIL would clip 16 bits, not scale them
    image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
  if image.has_transparency_data:
    image = image.convert('RGBA')
    white = Image.new('RGBA', image.size, 'white')
    image = Image.alpha_composite(white, image)
  return image.convert(MODES[channels])


def to_array(image: Image.Image) -> UInt8[np.ndarray, 'h w c']:
  """Returns the pixels of a grey or RGB image."""
  pixels = np.asarray(image, np.uint8)
  return pixels.reshape(image.height, image.width, -1)
