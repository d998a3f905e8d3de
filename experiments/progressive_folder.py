"""Progressive growing on any folder of images, to 128x128 by default.

The settings are those of progressive_celebahq.py, with half the feature maps.
Every PNG, JPEG, WebP, GIF and BMP file below the folder is read, cropped to its
central square, and resized to the resolution of the argument:

  python launch.py --config=experiments/progressive_folder.py:64 \
    --config.data.source=folder:/path/to/images

Each stage lasts 300,000 images: --config.growth.stable_images, fade_images, and
last_images for the last stage.
"""

from ml_collections import ConfigDict

from experiments import progressive_celebahq


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg: the resolution, a power of 2, or 'tiny'."""
  if arg == 'tiny':
    return progressive_celebahq.get_config(arg)
  resolution = arg or '128'
  valid = [str(4 * 2**level) for level in range(9)]
  if resolution not in valid:
    raise ValueError(
      f'unknown argument {arg!r} (valid: {", ".join(valid)}, tiny)'
    )
  config = progressive_celebahq.get_config()
  config.data.source = 'folder:'
  config.data.resolution = int(resolution)
  config.growth = progressive_celebahq.growth(int(resolution), 300_000, 300_000)
  config.schedule = progressive_celebahq.grow(int(resolution))
  config.model.gen.features = config.model.disc.features = 4096
  config.model.gen.most_features = config.model.disc.most_features = 256
  return config
