"""Files that are pictures, decoded: many at once, and the bad ones reported."""

import io
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image
from rich.progress import track

from gan_jax.data.preprocess import MODES, preprocess
from gan_jax.data.source import DataSpec
from gan_jax.errors import UserError, warn

T = TypeVar('T')
R = TypeVar('R')

# More undecodable files than this share, and the set is not what its owner
# thinks it is.
MOST_BAD = 0.1
MOST_BAD_NAMED = 5
# What Pillow raises of a file that is none of its kind, or damaged.
BROKEN = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
# What is decoded in one go: no more than this waits to be taken.
CHUNK = 1024


def decode(file: Path | io.BytesIO, wanted: DataSpec) -> np.ndarray | None:
  """-> uint8 [resolution, resolution, channels]; None: it does not decode."""
  try:
    with Image.open(file) as image:
      if wanted.crop is None:
        # JPEG decodes faster at half, a quarter, an eighth of its size.
        size = (2 * wanted.resolution, 2 * wanted.resolution)
        image.draft(MODES[wanted.channels], size)
      else:
        image.load()  # so that what is broken is not taken for too small
      return preprocess(image, wanted)
  except UserError:
    raise
  except BROKEN:
    return None


def is_animated(path: Path) -> bool:
  """Whether a file that decodes has several frames."""
  if path.suffix.lower() in ('.bmp', '.jpeg', '.jpg'):  # they cannot
    return False
  try:
    with Image.open(path) as image:
      return getattr(image, 'is_animated', False)
  except BROKEN:  # behind the first frame
    return True


def threaded(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
  """map(function, items), in their order, on all cores."""
  items = iter(items)
  with ThreadPoolExecutor(os.cpu_count()) as pool:
    while chunk := list(itertools.islice(items, CHUNK)):
      yield from pool.map(function, chunk)


def progress(items: Iterable[T], title: str, total: int) -> Iterable[T]:
  """The items, with a bar where there is a terminal."""
  quiet = not sys.stdout.isatty()
  return track(items, title, total=total, transient=True, disable=quiet)


def report(bad: list[str], total: int, where: str) -> None:
  """Warns of a few files that do not decode; refuses a set with many."""
  if not bad:
    return
  named = ', '.join(bad[:MOST_BAD_NAMED])
  more = len(bad) - MOST_BAD_NAMED
  named += f' and {more} more' if more > 0 else ''
  message = f'{len(bad)} of {total} files in {where} do not decode: {named}'
  if len(bad) > MOST_BAD * total or total - len(bad) < 2:
    raise UserError(f'{message}; mend or remove them')
  warn(f'{message}; going on without them')
