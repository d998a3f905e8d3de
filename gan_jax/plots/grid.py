"""Images on their way out: uint8, grids, PNG files."""

import io
import math
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, UInt8
from PIL import Image

from gan_jax.files import write_whole

SHOWN_WIDTH = 640


def grid(
  images: UInt8[np.ndarray, 'n h w c'], columns: int | None = None
) -> UInt8[np.ndarray, 'H W c']:
  """The images side by side, row by row; as near to a square as they go."""
  n, h, w, c = images.shape
  columns = columns or math.ceil(math.sqrt(n))
  rows = math.ceil(n / columns)
  cells = np.zeros((rows * columns, h, w, c), np.uint8)
  cells[:n] = images
  cells = cells.reshape(rows, columns, h, w, c).swapaxes(1, 2)
  return cells.reshape(rows * h, columns * w, c)


def columns_of(classes: int, count: int) -> int:
  """In a grid of about `count` images with one class a row."""
  return max(1, count // classes)


def labels_by_class(classes: int, count: int) -> Int32[Array, ' n']:
  """The labels of such a grid, row by row; of at most `count` images."""
  columns = columns_of(classes, count)
  return jnp.arange(min(count, classes * columns)) // columns


def write_gif(frames: Sequence[Path], file: Path) -> None:
  """Writes pictures as an animation, the last of them for two seconds."""
  first, *rest = (Image.open(frame).quantize() for frame in frames)
  lasting = [80] * len(rest) + [2000]
  encoded = io.BytesIO()
  first.save(
    encoded, format='GIF', save_all=True, append_images=rest,
    duration=lasting, loop=0,
  )  # fmt: skip
  write_whole(file, encoded.getvalue())


def downsized(
  images: UInt8[np.ndarray, 'n H W c'], pixels: int
) -> UInt8[np.ndarray, 'n h w c']:
  """Larger images in so many pixels, by a filter that does not alias."""
  if images.shape[1] <= pixels:
    return images
  resize = lambda image: np.asarray(to_pil(image).resize((pixels, pixels)))
  resized = np.stack([resize(image) for image in images])
  return resized.reshape(len(images), pixels, pixels, -1)


def to_pil(image: UInt8[np.ndarray, 'h w c']) -> Image.Image:
  """One image, grey or RGB, as PIL has it."""
  return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def write_png(path: Path, image: UInt8[np.ndarray, 'h w c']) -> None:
  """Writes a PNG; one that is there is replaced whole or not at all."""
  encoded = io.BytesIO()
  to_pil(image).save(encoded, format='PNG')
  write_whole(path, encoded.getvalue())


def show(
  images: UInt8[np.ndarray, 'n h w c'], columns: int | None = None
) -> Image.Image:
  """A grid of the images as a picture, which a notebook draws.

  Small images are enlarged, pixel by pixel, until they can be seen.
  """
  picture = to_pil(grid(images, columns))
  times = max(1, SHOWN_WIDTH // picture.width)
  return picture.resize(
    (times * picture.width, times * picture.height), Image.Resampling.NEAREST
  )
