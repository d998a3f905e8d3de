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


def folder(spec: DataSpec) -> Source:
  """Opens all PNG, JPEG, WebP, GIF and BMP files below `path`.

  The sub-folders are the labels, and the names of the files are their order.
  Each file is decoded once: files that cannot be decoded are reported and left
  out. Animations are reported too, and only their first frame is used. Images
  that fit on the device stay in memory; larger sets are decoded at each fetch.

  `{split}` in the path stands for `config.data.split`: the folder of a split.

  Raises:
    UserError: The folder does not exist, or has fewer than 2 images.
  """
  spec = fill_split(spec)
  root = existing_folder('folder', spec)
  paths = sorted(images_below(root))
  if len(paths) < 2:
    raise UserError(
      f'{root} has {len(paths)} images, but at least 2 are needed '
      f'({", ".join(sorted(SUFFIXES))})'
    )
  resident = stays_in_memory(spec, len(paths), spec.image_bytes)

  paths, images = _decode_all(root, paths, spec, resident)
  labels, classes = _labels(root, paths)
  if resident:
    source = in_memory({'images': np.stack(images), **labels}, classes)
    return source._replace(fingerprint=partial(fingerprint, root, paths))
  label_bytes = 4 if labels else 0
  return Source(
    size=len(paths),
    fetch=partial(_fetch, paths, labels, spec),
    example_bytes=spec.image_bytes + label_bytes,
    classes=classes,
    decodes=True,
    labels=partial(labels.__getitem__, 'labels') if labels else None,
    fingerprint=partial(fingerprint, root, paths),
  )


def existing_folder(kind: str, spec: DataSpec) -> Path:
  """Returns the folder that KIND:PATH names, a value of `config.data`.

  Raises:
    UserError: It does not exist.
  """
  root = Path(spec.path).expanduser()
  if not spec.path or not root.is_dir():
    raise UserError(
      f'there is no folder {spec.path!r}: name a folder of images, as in '
      f'{kind}:/path/to/images'
    )
  return root


def stays_in_memory(spec: DataSpec, size: int, example_bytes: int) -> bool:
  """Returns whether a set of files is decoded once, and kept in memory.

  Raises:
    UserError: No memory can hold the set, or, if it is streamed, one example
      for each core.
  """
  resident = size * example_bytes <= spec.max_device_bytes
  count = size if resident else os.cpu_count() or 1
  check_images(count, spec.resolution, example_bytes)
  return resident


def gone(files: object) -> UserError:
  """Returns the error of files that could be decoded at the start."""
  return UserError(f'{files} was deleted or damaged while in use: restore it')


def fill_split(spec: DataSpec) -> DataSpec:
  """Replaces `{split}` in the path by `config.data.split`.

  Raises:
    UserError: A split is requested, and the path has no `{split}`.
  """
  if '{split}' in spec.path:
    path = spec.path.replace('{split}', spec.split)
    return spec._replace(path=path, split='all')
  check_no_splits('a folder', spec)
  return spec


def _decode_all(
  root: Path, paths: list[Path], spec: DataSpec, resident: bool
) -> tuple[list[Path], list[np.ndarray]]:
  """Decodes all files once, and reports the animated and the damaged ones.

  Returns:
    The paths that can be decoded; and their images if `resident`, else [].
  """
  animated: list[Path] = []

  def decode_one(path: Path) -> np.ndarray | bool:
    image = decode(path, spec)
    if image is None:
      return False
    if is_animated(path):
      animated.append(path)
    return image if resident else True

  decoded = threaded(decode_one, paths)
  decoded = list(progress(decoded, f'Reading {root}', len(paths)))
  if animated:
    warn(
      f'{len(animated)} of {len(paths)} files in {root} are animations: '
      'only the first frame of each is used'
    )
  pairs = list(zip(paths, decoded, strict=True))
  failed = [str(path) for path, image in pairs if image is False]
  report(failed, len(paths), str(root))
  paths = [path for path, image in pairs if image is not False]
  images = [image for image in decoded if image is not False]
  return paths, images if resident else []


def fingerprint(root: Path, paths: list[Path]) -> Fingerprint:
  """Hashes the names and sizes of the files; locally also their times."""
  content, on_this_machine = hashlib.sha256(), hashlib.sha256()
  for path in paths:
    stat = path.stat()
    entry = f'{path.relative_to(root).as_posix()}\0{stat.st_size}\0'
    content.update(entry.encode(errors='surrogateescape'))
    on_this_machine.update(f'{stat.st_mtime_ns}\0'.encode())
  on_this_machine.update(content.digest())
  return Fingerprint(content.hexdigest(), on_this_machine.hexdigest())


def _fetch(
  paths: list[Path], labels: Examples, spec: DataSpec, indices: np.ndarray
) -> Examples:
  """Decodes the images at `indices`."""
  images = [decode(paths[index], spec) for index in indices]
  for index, image in zip(indices, images, strict=True):
    if image is None:
      raise gone(paths[index])
  return {
    'images': np.stack(images),
    **{name: array[indices] for name, array in labels.items()},
  }


def images_below(root: Path) -> Iterator[Path]:
  """Yields the path of each image file below `root`, in no order."""
  for folder, _, names in os.walk(root, followlinks=True):
    for name in names:
      if Path(name).suffix.lower() in SUFFIXES and not name.startswith('.'):
        yield Path(folder) / name


def _labels(root: Path, paths: list[Path]) -> tuple[Examples, tuple[str, ...]]:
  """Returns the labels and class names: the first folder below the root.

  There are no labels if an image lies directly in the root.
  """
  parents = [path.relative_to(root).parts[:-1] for path in paths]
  if not all(parents):
    num_unlabelled = sum(not parent for parent in parents)
    if num_unlabelled < len(paths):
      warn(
        f'{num_unlabelled} images of {root} are in no sub-folder, so no labels '
        'are used: move each image into the folder of its class'
      )
    return {}, ()
  classes, labels = np.unique([p[0] for p in parents], return_inverse=True)
  return {'labels': labels.astype(np.int32)}, tuple(classes.tolist())
