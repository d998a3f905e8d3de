"""DCGAN on any folder of images.

The settings are those of dcgan_celeba.py, with random mirroring. Every PNG,
JPEG, WebP, GIF and BMP file below the folder is read, cropped to its central
square, and resized:

  python launch.py --config=experiments/dcgan_folder.py \
    --config.data.source=folder:/path/to/images --config.data.resolution=64
"""

from ml_collections import ConfigDict

from experiments import dcgan_celeba


def get_config(arg: str = '') -> ConfigDict:
  """Returns the config; arg 'tiny': seconds on a laptop, with digits."""
  config = dcgan_celeba.get_config(arg)
  config.data.flip = True
  if arg != 'tiny':
    config.data.source = 'folder:'
    config.data.crop = None
    config.total_images = 2_000_000
  return config
