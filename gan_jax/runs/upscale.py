"""Super-resolution of images of any size, in tiles."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from gan_jax.data.decode import name_some, progress
from gan_jax.data.folder import images_below
from gan_jax.data.patches import read_image
from gan_jax.data.preprocess import standardize, to_array
from gan_jax.errors import UserError, warn
from gan_jax.metrics import paired

if TYPE_CHECKING:
  import pandas

  from gan_jax.runs.run import Run

Pixels = UInt8[np.ndarray, 'h w c']
Large = UInt8[np.ndarray, 'H W c']

# Sides of a tile, and pixels that it shares with its neighbours on each side.
TILE, OVERLAP = 256, 32
MULTIPLE = 4  # images are extended to multiples, which networks need


def upscale(
  run: 'Run',
  image: Image.Image | np.ndarray,
  tile: int = TILE,
  overlap: int = OVERLAP,
) -> Large:
  """Enlarges an image of any size by the run's factor.

  >>> run.upscale(Image.open('photograph.jpg'))

  A large image is enlarged in tiles, which bounds the memory. What the network
  sees of an image beyond a tile is its overlap: the result is exact if the
  overlap is at least the radius of the network's receptive field.

  Args:
    run: A run of super-resolution.
    image: A picture, or uint8 [h, w, c].
    tile: The side of a tile, in pixels of `image`, with its overlaps.
    overlap: Pixels that a tile shares with its neighbour on each side.

  Returns:
    uint8 [scale h, scale w, c].

  Raises:
    UserError: The run does not enlarge images; or the image does not fit.
  """
  scale = scale_of(run)
  if tile <= 2 * overlap or overlap < 0 or tile % MULTIPLE:
    raise UserError(
      f'tile={tile} must be a multiple of {MULTIPLE} and more than twice the '
      f'overlap={overlap}'
    )
  pixels = _pixels(image, run.config.data.channels)
  height, width = pixels.shape[:2]
  extended = _extend(pixels)
  large = np.zeros(
    (scale * extended.shape[0], scale * extended.shape[1], pixels.shape[2]),
    np.uint8,
  )
  tiles = list(product(*(_tiles(n, tile, overlap) for n in extended.shape[:2])))
  shown = progress(tiles, 'Enlarging', len(tiles)) if tiles[1:] else tiles
  for (rows, own_rows), (columns, own_columns) in shown:
    made = _enlarge(run, extended[rows, columns])
    inner = tuple(
      _scaled(own, scale, whole.start)
      for own, whole in ((own_rows, rows), (own_columns, columns))
    )
    place = _scaled(own_rows, scale), _scaled(own_columns, scale)
    large[place] = made[inner]
  return large[: scale * height, : scale * width]


def scale_of(run: 'Run') -> int:
  """Returns the factor of a run of super-resolution.

  Raises:
    UserError: The run does not enlarge images.
  """
  output = run.main_output
  if output.inputs_of is None or output.scale == 1:
    raise UserError(
      f'the generator of {run.workdir} does not enlarge images: only runs of '
      'super-resolution do'
    )
  return output.scale


def upscale_scores(run: 'Run', folder: str | Path) -> 'pandas.DataFrame':
  """Measures PSNR and SSIM of whole images against bicubic interpolation.

  Each image of the folder is cropped to a multiple of the factor, reduced by
  MATLAB's bicubic filter, and enlarged again; compared on luma, without a
  border of the factor, as published for Set5 and Set14.

  Returns:
    A row per file, and the mean: psnr, ssim, bicubic_psnr, bicubic_ssim.

  Raises:
    UserError: The run does not enlarge images, or the folder has none.
  """
  import pandas

  scale, root = scale_of(run), Path(folder).expanduser()
  paths = sorted(images_below(root)) if root.is_dir() else []
  if not paths:
    raise UserError(f'{folder} has no images')
  rows, failed = {}, []
  for path in progress(paths, f'Measuring {root}', len(paths)):
    image = read_image(path, run.config.data.channels)
    if image is None:
      failed.append(path)
      continue
    height, width = (n - n % scale for n in image.shape[:2])
    target = image[None, :height, :width]
    small = paired.resize(target, 1 / scale)
    made = {'': upscale(run, small[0])[None]}
    made['bicubic_'] = paired.resize(small, scale)
    rows[path.relative_to(root).as_posix()] = {
      f'{name}{score.__name__}': float(score(x, target, scale)[0])
      for name, x in made.items()
      for score in (paired.psnr, paired.ssim)
    }
  if failed:
    warn(f'{len(failed)} files cannot be decoded: {name_some(failed)}')
  table = pandas.DataFrame.from_dict(rows, orient='index')
  table.loc['mean'] = table.mean()
  return table


def _pixels(image: Image.Image | np.ndarray, channels: int) -> Pixels:
  """Returns the pixels of an image with the channels of the run."""
  if isinstance(image, Image.Image):
    return to_array(standardize(image, channels))
  image = np.asarray(image)
  if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != channels:
    raise UserError(
      f'expected a picture or uint8 [h, w, {channels}], not {image.dtype} '
      f'{list(image.shape)}'
    )
  return image


def _extend(pixels: Pixels) -> Large:
  """Repeats the last rows and columns, up to a multiple of the sides."""
  extra = [(0, -n % MULTIPLE) for n in pixels.shape[:2]]
  return np.pad(pixels, (*extra, (0, 0)), mode='edge')


def _tiles(size: int, tile: int, overlap: int) -> Iterator[tuple[slice, slice]]:
  """Yields the tiles along an axis: all pixels, and those it contributes."""
  if size <= tile:
    yield slice(0, size), slice(0, size)
    return
  done = 0
  while done < size:
    start = min(max(0, done - overlap), size - tile)
    end = start + tile
    own_end = size if end == size else end - overlap
    yield slice(start, end), slice(done, own_end)
    done = own_end


def _scaled(own: slice, scale: int, start: int = 0) -> slice:
  return slice(scale * (own.start - start), scale * (own.stop - start))


def _enlarge(run: 'Run', pixels: Pixels) -> Large:
  """Applies the generator to one tile."""
  keys = jax.random.split(jax.random.key(0), 1)
  images = jnp.asarray(pixels[None], jnp.float32) / 127.5 - 1
  inputs = run.main_output.inputs_of(images, keys)
  return run.generate(inputs)[0]
