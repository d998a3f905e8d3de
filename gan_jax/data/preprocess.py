"""Any picture, made into the square uint8 image that the networks are fed."""

import numpy as np
from PIL import Image, ImageOps

from gan_jax.data.source import DataSpec
from gan_jax.errors import UserError

# Of what makes uint8 images of pictures (here, and how data/decode.py has JPEGs
# drafted) and of what G generates (pictures.quantize). Raised by one whenever
# pixels change on purpose: scores of two versions are not comparable.
VERSION = 1

# PIL's modes: what the config's number of channels asks for.
MODES = {1: 'L', 3: 'RGB'}


def preprocess(image: Image.Image, wanted: DataSpec) -> np.ndarray:
  """-> uint8 [resolution, resolution, channels].

  Turned as its EXIF data says, composited on white where it is transparent,
  cropped to the square of `crop` pixels in its centre (None: to the largest),
  resized once, with an anti-aliased filter (Lanczos), and made grey or RGB.
  """
  image = ImageOps.exif_transpose(image)
  if image.mode.startswith('I'):  # 16 bits: PIL would clip them, not scale
    image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
  if image.has_transparency_data:
    image = image.convert('RGBA')
    white = Image.new('RGBA', image.size, 'white')
    image = Image.alpha_composite(white, image)
  image = image.convert(MODES[wanted.channels])
  side = wanted.crop or min(image.size)
  if side > min(image.size):
    raise UserError(
      f'config.data.crop={side} is larger than an image of '
      f'{image.width}x{image.height}'
    )
  left, top = (image.width - side) // 2, (image.height - side) // 2
  image = image.crop((left, top, left + side, top + side))
  resolution = wanted.resolution
  if side != resolution:
    image = image.resize((resolution, resolution), Image.Resampling.LANCZOS)
  pixels = np.asarray(image, np.uint8)
  return pixels.reshape(resolution, resolution, wanted.channels)
