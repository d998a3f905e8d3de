"""A folder of the user's own images."""

import hashlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from gan_jax.data.decode import decode, is_animated, progress, report, threaded
from gan_jax.data.source import (
  DataSpec,
  Examples,
  Fingerprint,
  Source,
  check_no_splits,
  in_memory,
)
from gan_jax.errors import UserError, warn
from gan_jax.memory import check_images

SUFFIXES = {'.bmp', '.gif', '.jpeg', '.jpg', '.png', '.webp'}


def folder(wanted: DataSpec) -> Source:
  """Every PNG, JPEG, WebP, GIF and BMP below `path`; sub-folders are labels.

  Files are taken in the order of their names; of an animation the first frame,
  and a warning tells how many there are. All are decoded once: one that cannot
  be is named and left out. A set that fits on the device is kept, a
  larger one decoded again whenever it is fetched.
  """
  check_no_splits('a folder', wanted)
  root = Path(wanted.path).expanduser()
  if not wanted.path or not root.is_dir():
    raise UserError(
      f'there is no folder {wanted.path!r}: name one of images, as in '
      '--config.data.source=folder:/path/to/images'
    )
  paths = sorted(images_below(root))
  if len(paths) < 2:
    raise UserError(
      f'{len(paths)} images below {root}: at least 2 are needed '
      f'({", ".join(sorted(SUFFIXES))})'
    )
  keep = len(paths) * wanted.image_bytes <= wanted.max_device_bytes
  # At least, one is decoded on each core at a time.
  count = len(paths) if keep else os.cpu_count() or 1
  check_images(count, wanted.resolution, wanted.image_bytes)

  animated: list[Path] = []

  def look(path: Path) -> np.ndarray | bool:
    image = decode(path, wanted)
    if image is None:
      return False
    if is_animated(path):
      animated.append(path)
    return image if keep else True

  looked = threaded(look, paths)
  looked = list(progress(looked, f'Reading {root}', len(paths)))
  if animated:
    warn(
      f'{len(animated)} of {len(paths)} files in {root} are animations: '
      'the first frame of each is taken'
    )
  good = [image is not False for image in looked]
  bad = [str(p) for p, fine in zip(paths, good, strict=True) if not fine]
  report(bad, len(paths), str(root))
  paths = [p for p, fine in zip(paths, good, strict=True) if fine]
  labels, classes = _labels(root, paths)
  if keep:
    images = np.stack([image for image in looked if image is not False])
    source = in_memory({'images': images, **labels}, classes)
    return source._replace(fingerprint=partial(_fingerprint, root, paths))
  label_bytes = 4 if labels else 0
  return Source(
    size=len(paths),
    fetch=partial(_fetch, paths, labels, wanted),
    example_bytes=wanted.image_bytes + label_bytes,
    classes=classes,
    decodes=True,
    labels=partial(labels.__getitem__, 'labels') if labels else None,
    fingerprint=partial(_fingerprint, root, paths),
  )


def _fingerprint(root: Path, paths: list[Path]) -> Fingerprint:
  """By the files' names and sizes; here also by their times."""
  content, here = hashlib.sha256(), hashlib.sha256()
  for path in paths:
    stat = path.stat()
    told = f'{path.relative_to(root).as_posix()}\0{stat.st_size}\0'
    content.update(told.encode(errors='surrogateescape'))
    here.update(f'{stat.st_mtime_ns}\0'.encode())
  here.update(content.digest())
  return Fingerprint(content.hexdigest(), here.hexdigest())


def _fetch(
  paths: list[Path], labels: Examples, wanted: DataSpec, indices: np.ndarray
) -> Examples:
  images = [decode(paths[index], wanted) for index in indices]
  for index, image in zip(indices, images, strict=True):
    if image is None:
      raise UserError(f'{paths[index]} is gone, or does not decode any more')
  return {
    'images': np.stack(images),
    **{name: array[indices] for name, array in labels.items()},
  }


def images_below(root: Path) -> Iterator[Path]:
  """Every file that may be an image, in no order."""
  for folder, _, names in os.walk(root, followlinks=True):
    for name in names:
      if Path(name).suffix.lower() in SUFFIXES and not name.startswith('.'):
        yield Path(folder) / name


def _labels(root: Path, paths: list[Path]) -> tuple[Examples, tuple[str, ...]]:
  """The first folder below the root is the class, if every image has one."""
  parents = [path.relative_to(root).parts[:-1] for path in paths]
  if not all(parents):
    loose = sum(not parent for parent in parents)
    if loose < len(paths):
      warn(
        f'{loose} images of {root} are in no sub-folder: there are no labels'
      )
    return {}, ()
  classes, labels = np.unique([p[0] for p in parents], return_inverse=True)
  return {'labels': labels.astype(np.int32)}, tuple(classes.tolist())
