"""Patches of a folder of large images, for super-resolution."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from gan_jax.data.decode import (
  DECODE_ERRORS,
  name_some,
  progress,
  report,
  threaded,
)
from gan_jax.data.folder import (
  SUFFIXES,
  existing_folder,
  fill_split,
  fingerprint,
  gone,
  images_below,
  stays_in_memory,
)
from gan_jax.data.preprocess import standardize, to_array
from gan_jax.data.source import (
  DataSpec,
  Examples,
  Source,
  in_memory,
)
from gan_jax.errors import UserError, warn


class Patch(NamedTuple):
  """A square of an image file, by its upper left corner."""

  path: Path
  top: int
  left: int


def patches(spec: DataSpec) -> Source:
  """Opens patches of `resolution` pixels of all images below `path`.

  Unlike `folder`, it never resizes an image. The patches of an image overlap by
  half, and the last ones end at its border: they are those of BasicSR's
  extract_subimages with a step of half the size. Files that cannot be decoded,
  and images that are smaller than a patch, are reported and left out.

  `{split}` in the path stands for `config.data.split`. A set that does not fit
  on the device is decoded at each fetch, a whole image for each patch.

  Raises:
    UserError: The folder does not exist, or has no image of that size.
  """
  spec = fill_split(spec)
  if spec.crop is not None:
    raise UserError(
      'config.data.source=patches does not crop images: set '
      '--config.data.crop=None'
    )
  root = existing_folder('patches', spec)
  paths = sorted(images_below(root))
  if not paths:
    raise UserError(f'{root} has no images ({", ".join(sorted(SUFFIXES))})')
  sizes = threaded(partial(_size, spec.channels), paths)
  sizes = list(progress(sizes, f'Reading {root}', len(paths)))
  usable = _usable(root, paths, sizes, spec.resolution)
  found = [
    Patch(path, top, left)
    for path, (height, width) in usable.items()
    for top in corners(height, spec.resolution)
    for left in corners(width, spec.resolution)
  ]
  resident = stays_in_memory(spec, len(found), spec.image_bytes)
  digest = partial(fingerprint, root, list(usable))
  if resident:
    cut = threaded(partial(_cut_all, spec), usable.items())
    images = np.concatenate(list(cut))
    return in_memory({'images': images})._replace(fingerprint=digest)
  return Source(
    size=len(found),
    fetch=partial(_fetch, found, spec),
    example_bytes=spec.image_bytes,
    decodes=True,
    fingerprint=digest,
  )


def corners(size: int, patch: int) -> list[int]:
  """Returns the positions of the patches along an axis of `size` pixels."""
  step = max(1, patch // 2)
  starts = list(range(0, size - patch + 1, step))
  if starts[-1] + patch < size:
    starts.append(size - patch)
  return starts


def _usable(
  root: Path,
  paths: list[Path],
  sizes: list[tuple[int, int] | None],
  patch: int,
) -> dict[Path, tuple[int, int]]:
  """Returns the sizes of the files to use, and reports the others."""
  found = dict(zip(paths, sizes, strict=True))
  failed = [str(path) for path, size in found.items() if size is None]
  report(failed, len(paths), str(root))
  decoded = {path: size for path, size in found.items() if size is not None}
  small = [path for path, size in decoded.items() if min(size) < patch]
  usable = {path: s for path, s in decoded.items() if min(s) >= patch}
  if not usable:
    raise UserError(
      f'none of the {len(paths)} files in {root} is an image of at least '
      f'{patch}x{patch} pixels: reduce --config.data.load_resolution and '
      '--config.data.resolution'
    )
  if small:
    warn(
      f'{len(small)} of {len(paths)} images in {root} are smaller than a patch '
      f'of {patch}x{patch} pixels: {name_some(small)}; continuing without them'
    )
  return usable


def read_image(path: Path, channels: int) -> UInt8[np.ndarray, 'h w c'] | None:
  """Decodes a file at its own size; None if it cannot be decoded."""
  try:
    with Image.open(path) as image:
      return to_array(standardize(image, channels))
  except DECODE_ERRORS:
    return None


def _size(channels: int, path: Path) -> tuple[int, int] | None:
  image = read_image(path, channels)
  return None if image is None else image.shape[:2]


def _read_again(path: Path, channels: int) -> UInt8[np.ndarray, 'h w c']:
  image = read_image(path, channels)
  if image is None:
    raise gone(path)
  return image


def _cut_all(
  spec: DataSpec, item: tuple[Path, tuple[int, int]]
) -> UInt8[np.ndarray, 'n h w c']:
  """Cuts all patches of a file."""
  path, (height, width) = item
  image, size = _read_again(path, spec.channels), spec.resolution
  return np.stack(
    [
      image[top : top + size, left : left + size]
      for top in corners(height, size)
      for left in corners(width, size)
    ]
  )


def _fetch(found: list[Patch], spec: DataSpec, indices: np.ndarray) -> Examples:
  """Decodes the patches at `indices`."""
  size, cut = spec.resolution, []
  for index in indices:
    path, top, left = found[index]
    image = _read_again(path, spec.channels)
    cut.append(image[top : top + size, left : left + size])
  return {'images': np.stack(cut)}
