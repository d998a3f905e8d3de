"""Any picture, made into the square uint8 image that the networks are fed."""

import numpy as np
from PIL import Image, ImageOps

# PIL's modes: what the config's number of channels asks for.
MODES = {1: 'L', 3: 'RGB'}


def standardize(
  image: Image.Image, resolution: int, channels: int
) -> np.ndarray:
  """-> uint8 [resolution, resolution, channels].

  Turned as its EXIF data says, composited on white where it is transparent,
  cropped to the square in its centre, resized once, with an anti-aliased
  filter (Lanczos), and made grey or RGB.
  """
  image = ImageOps.exif_transpose(image)
  if image.mode.startswith('I'):  # 16 bits: PIL would clip them, not scale
    image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
  if image.has_transparency_data:
    image = image.convert('RGBA')
    white = Image.new('RGBA', image.size, 'white')
    image = Image.alpha_composite(white, image)
  image = image.convert(MODES[channels])
  side = min(image.size)
  left, top = (image.width - side) // 2, (image.height - side) // 2
  image = image.crop((left, top, left + side, top + side))
  if side != resolution:
    image = image.resize((resolution, resolution), Image.Resampling.LANCZOS)
  return np.asarray(image, np.uint8).reshape(resolution, resolution, channels)
