"""Preprocessing of any image to the square uint8 image that a network takes."""

import numpy as np
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

  Rotates it by its EXIF data, composites transparency on white, crops the
  central square of `crop` pixels (None: the largest one), resizes it once, with
  the anti-aliased Lanczos filter, and makes it grey or RGB.

  Raises:
    UserError: The image is smaller than the crop.
  """
  image = ImageOps.exif_transpose(image)
  if image.mode.startswith('I'):  # PIL would clip 16 bits, not scale them
    image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
  if image.has_transparency_data:
    image = image.convert('RGBA')
    white = Image.new('RGBA', image.size, 'white')
    image = Image.alpha_composite(white, image)
  image = image.convert(MODES[spec.channels])
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
  pixels = np.asarray(image, np.uint8)
  return pixels.reshape(resolution, resolution, spec.channels)
