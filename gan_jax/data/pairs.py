"""Paired images: two halves of a file, or files of two folders."""

import os
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from gan_jax.data.decode import (
  DECODE_ERRORS,
  decode,
  name_some,
  progress,
  report,
  threaded,
)
from gan_jax.data.folder import (
  SUFFIXES,
  fill_split,
  fingerprint,
  gone,
  images_below,
  stays_in_memory,
)
from gan_jax.data.preprocess import MODES, preprocess, standardize
from gan_jax.data.source import (
  DataSpec,
  Examples,
  Source,
  in_memory,
)
from gan_jax.errors import UserError, warn

# The files of one example: one with both halves, or one of each folder.
Files = tuple[Path, ...]


def pairs(spec: DataSpec) -> Source:
  """Opens pairs of images: 'a' and 'b' of each example.

  `path` is a folder of files that show 'a' in their left half and 'b' in their
  right half; or two folders, A,B, in which files of the same name, without the
  suffix, are a pair. Files that have no partner, or that cannot be decoded, are
  reported and left out. Both images are prepared as those of `folder`.
  `{split}` in the path stands for `config.data.split`.

  Raises:
    UserError: A folder does not exist, or has fewer than 2 pairs.
  """
  spec = fill_split(spec)
  roots = [_folder(name, spec.path) for name in spec.path.split(',')]
  if len(roots) > 2:
    raise UserError(
      f'config.data.source=pairs:{spec.path} names {len(roots)} folders: name '
      'one folder of side-by-side files, or two folders, as pairs:A,B'
    )
  files = _match(*roots) if len(roots) == 2 else _side_by_side(roots[0])
  where = ' and '.join(map(str, roots))
  if len(files) < 2:
    raise UserError(
      f'{where}: {len(files)} pairs of images, but at least 2 are needed '
      f'({", ".join(sorted(SUFFIXES))})'
    )
  example_bytes = 2 * spec.image_bytes
  resident = stays_in_memory(spec, len(files), example_bytes)

  decoded = threaded(partial(_decode_once, resident, spec), files)
  decoded = list(progress(decoded, f'Reading {where}', len(files)))
  found = list(zip(files, decoded, strict=True))
  failed = [' and '.join(map(str, f)) for f, example in found if not example]
  report(failed, len(files), where)
  files = [f for f, example in found if example]
  paths = [path for both in files for path in both]
  digest = partial(fingerprint, Path(os.path.commonpath(roots)), paths)
  if resident:
    kept = _stack([example for _, example in found if example])
    return in_memory(kept)._replace(fingerprint=digest)
  return Source(
    size=len(files),
    fetch=partial(_fetch, files, spec),
    example_bytes=example_bytes,
    decodes=True,
    fingerprint=digest,
  )


def _folder(name: str, path: str) -> Path:
  """Returns a folder that exists."""
  root = Path(name).expanduser()
  if not name or not root.is_dir():
    raise UserError(
      f'config.data.source=pairs:{path}: there is no folder {name!r}: name a '
      'folder of side-by-side files, or two folders of images, as pairs:A,B'
    )
  return root


def _side_by_side(root: Path) -> list[Files]:
  return [(path,) for path in sorted(images_below(root))]


def _match(first: Path, second: Path) -> list[Files]:
  """Matches the files of two folders by their paths without the suffix."""
  by_name = []
  for root in (first, second):
    names: dict[str, Path] = {}
    for path in sorted(images_below(root)):
      name = path.relative_to(root).with_suffix('').as_posix()
      if name in names:
        raise UserError(
          f'{names[name]} and {path} have the same name without the suffix, so '
          'the partner of neither is known: rename one'
        )
      names[name] = path
    by_name.append(names)
  a, b = by_name
  alone = [str(a[name]) for name in sorted(a.keys() - b.keys())]
  alone += [str(b[name]) for name in sorted(b.keys() - a.keys())]
  if alone:
    warn(
      f'{len(alone)} files have no partner of the same name in the other '
      f'folder: {name_some(alone)}; continuing without them'
    )
  return [(a[name], b[name]) for name in sorted(a.keys() & b.keys())]


def _decode(files: Files, spec: DataSpec) -> Examples | None:
  """Decodes one pair: uint8 [h, w, c] each; None if it cannot be decoded."""
  if len(files) == 2:
    images = [decode(path, spec) for path in files]
  else:
    images = _decode_halves(files[0], spec)
  if any(image is None for image in images):
    return None
  return dict(zip('ab', images, strict=True))


def _decode_halves(path: Path, spec: DataSpec) -> list[np.ndarray | None]:
  """Decodes the left and the right half of a file; [None] if damaged."""
  try:
    with Image.open(path) as image:
      if spec.crop is None:
        size = (4 * spec.resolution, 2 * spec.resolution)
        image.draft(MODES[spec.channels], size)
      image = standardize(image, spec.channels)
  except DECODE_ERRORS:
    return [None]
  half, height = image.width // 2, image.height
  corners = ((0, 0, half, height), (image.width - half, 0, image.width, height))
  if not half:
    return [None]
  return [preprocess(image.crop(corner), spec) for corner in corners]


def _decode_once(
  keep: bool, spec: DataSpec, files: Files
) -> Examples | bool | None:
  """Decodes a pair; returns it, or only whether it can be decoded."""
  example = _decode(files, spec)
  return example if keep else example is not None


def _stack(examples: list[Examples]) -> Examples:
  return {
    name: np.stack([example[name] for example in examples]) for name in 'ab'
  }


def _fetch(files: list[Files], spec: DataSpec, indices: np.ndarray) -> Examples:
  """Decodes the pairs at `indices`."""
  examples = [_decode(files[index], spec) for index in indices]
  for index, example in zip(indices, examples, strict=True):
    if example is None:
      raise gone(' or '.join(map(str, files[index])))
  return _stack(examples)
