"""Grids of uint8 images, PNG and GIF files."""

import io
import math
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, UInt8
from PIL import Image

from gan_jax.files import write_whole

# Notebooks enlarge smaller grids to about this width, in pixels.
SHOWN_WIDTH = 640


def grid(
  images: UInt8[np.ndarray, 'n h w c'], columns: int | None = None
) -> UInt8[np.ndarray, 'H W c']:
  """Arranges images in a grid, row by row.

  `columns` None: as many columns as rows, or one more.
  """
  n, h, w, c = images.shape
  columns = columns or math.ceil(math.sqrt(n))
  rows = math.ceil(n / columns)
  cells = np.zeros((rows * columns, h, w, c), np.uint8)
  cells[:n] = images
  cells = cells.reshape(rows, columns, h, w, c).swapaxes(1, 2)
  return cells.reshape(rows * h, columns * w, c)


def grid_columns(classes: int, count: int) -> int:
  """Returns the columns of a grid of `count` images with a row per class."""
  return max(1, count // classes)


def labels_by_class(classes: int, count: int) -> Int32[Array, ' n']:
  """Returns the labels of such a grid, row by row; at most `count`."""
  columns = grid_columns(classes, count)
  return jnp.arange(min(count, classes * columns)) // columns


def write_gif(frames: Sequence[Path], file: Path) -> None:
  """Writes frames as an animation that shows the last for two seconds."""
  first, *rest = (Image.open(frame).quantize() for frame in frames)
  durations = [80] * len(rest) + [2000]  # milliseconds
  encoded = io.BytesIO()
  first.save(
    encoded, format='GIF', save_all=True, append_images=rest,
    duration=durations, loop=0,
  )  # fmt: skip
  write_whole(file, encoded.getvalue())


def shrink_to(
  images: UInt8[np.ndarray, 'n H W c'], pixels: int
) -> UInt8[np.ndarray, 'n h w c']:
  """Resizes larger images to `pixels` by `pixels`, with antialiasing."""
  if images.shape[1] <= pixels:
    return images
  resize = lambda image: np.asarray(to_pil(image).resize((pixels, pixels)))
  resized = np.stack([resize(image) for image in images])
  return resized.reshape(len(images), pixels, pixels, -1)


def to_pil(image: UInt8[np.ndarray, 'h w c']) -> Image.Image:
  """Converts a grey or RGB image to PIL."""
  return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def write_png(path: Path, image: UInt8[np.ndarray, 'h w c']) -> None:
  """Writes a PNG file atomically."""
  encoded = io.BytesIO()
  to_pil(image).save(encoded, format='PNG')
  write_whole(path, encoded.getvalue())


def show(
  images: UInt8[np.ndarray, 'n h w c'], columns: int | None = None
) -> Image.Image:
  """Returns a grid of images as a PIL image, which a notebook displays.

  Small images are enlarged by whole factors, without smoothing.
  """
  image = to_pil(grid(images, columns))
  factor = max(1, SHOWN_WIDTH // image.width)
  size = factor * image.width, factor * image.height
  return image.resize(size, Image.Resampling.NEAREST)
