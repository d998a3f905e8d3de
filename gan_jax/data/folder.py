"""A folder of the user's own images."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from rich.progress import track

from gan_jax.data.source import Source, in_memory
from gan_jax.data.standard import MODES, standardize
from gan_jax.errors import UserError

SUFFIXES = {'.jpeg', '.jpg', '.png', '.webp'}
# More undecodable files than this share, and the folder is not what its owner
# thinks it is.
MOST_BAD = 0.1
MOST_BAD_NAMED = 5


def folder(path: str, resolution: int, channels: int) -> Source:
  """Every PNG, JPEG and WebP below `path`; its sub-folders are the labels.

  Files are taken in the order of their names. One that does not decode is
  named and left out.
  """
  root = Path(path).expanduser()
  if not path or not root.is_dir():
    raise UserError(
      f'there is no folder {path!r}: name one of images, as in '
      '--config.data.source=folder:/path/to/images'
    )
  paths = sorted(_images_below(root))
  if len(paths) < 2:
    raise UserError(
      f'{len(paths)} images below {root}: at least 2 are needed '
      f'({", ".join(sorted(SUFFIXES))})'
    )

  def decode(path: Path) -> np.ndarray | None:
    try:
      with Image.open(path) as image:
        # JPEG decodes faster at half, a quarter, an eighth of its size.
        image.draft(MODES[channels], (2 * resolution, 2 * resolution))
        return standardize(image, resolution, channels)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
      return None

  with ThreadPoolExecutor(os.cpu_count()) as pool:
    decoded = pool.map(decode, paths)
    decoded = list(
      track(decoded, f'Reading {root}', total=len(paths), transient=True)
    )
  pairs = list(zip(paths, decoded, strict=True))
  _report([p for p, image in pairs if image is None], len(paths), root)
  pairs = [(p, image) for p, image in pairs if image is not None]
  examples = {'images': np.stack([image for _, image in pairs])}
  # The first folder below the root is the class, if every image has one.
  parents = [p.relative_to(root).parts[:-1] for p, _ in pairs]
  if not all(parents):
    return in_memory(examples)
  classes, labels = np.unique([p[0] for p in parents], return_inverse=True)
  examples['labels'] = labels.astype(np.int32)
  return in_memory(examples, tuple(classes.tolist()))


def _images_below(root: Path) -> Iterator[Path]:
  for folder, _, names in os.walk(root, followlinks=True):
    for name in names:
      if Path(name).suffix.lower() in SUFFIXES and not name.startswith('.'):
        yield Path(folder) / name


def _report(bad: list[Path], total: int, root: Path) -> None:
  if not bad:
    return
  named = ', '.join(str(path) for path in bad[:MOST_BAD_NAMED])
  more = len(bad) - MOST_BAD_NAMED
  named += f' and {more} more' if more > 0 else ''
  message = f'{len(bad)} of {total} files below {root} do not decode: {named}'
  if len(bad) > MOST_BAD * total or total - len(bad) < 2:
    raise UserError(f'{message}; mend or remove them')
  print(f'Warning: {message}; going on without them')
