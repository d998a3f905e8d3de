"""Decoding of image files: in parallel, with a report of the damaged ones."""

import io
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
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

# A larger share of files that cannot be decoded is an error: the folder is
# probably not the intended one.
MAX_FAILED_SHARE = 0.1
MAX_NAMED = 5
# The errors that Pillow raises for damaged files and files of other formats.
DECODE_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
# Number of items submitted to the threads at once, which bounds the memory of
# results that wait to be consumed.
CHUNK = 1024


def decode(file: Path | io.BytesIO, spec: DataSpec) -> np.ndarray | None:
  """Decodes a file to uint8 [resolution, resolution, channels].

  Returns None if the file cannot be decoded.
  """
  try:
    with Image.open(file) as image:
      if spec.crop is None:
        # JPEG decodes faster at 1/2, 1/4 or 1/8 of its size.
        size = (2 * spec.resolution, 2 * spec.resolution)
        image.draft(MODES[spec.channels], size)
      else:
        image.load()  # raises for a damaged file before the size is checked
      return preprocess(image, spec)
  except UserError:
    raise
  except DECODE_ERRORS:
    return None


def is_animated(path: Path) -> bool:
  """Whether a file that can be decoded has several frames."""
  if path.suffix.lower() in ('.bmp', '.jpeg', '.jpg'):  # never animated
    return False
  try:
    with Image.open(path) as image:
      return getattr(image, 'is_animated', False)
  except DECODE_ERRORS:  # the damage lies behind the first frame
    return True


def threaded(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
  """Maps a function over the items, in order, with a thread for each core."""
  items = iter(items)
  with ThreadPoolExecutor(os.cpu_count()) as pool:
    while chunk := list(itertools.islice(items, CHUNK)):
      yield from pool.map(function, chunk)


def progress(items: Iterable[T], title: str, total: int) -> Iterable[T]:
  """Yields the items and shows a progress bar on a terminal."""
  quiet = not sys.stdout.isatty()
  return track(items, title, total=total, transient=True, disable=quiet)


def name_some(names: Sequence[object]) -> str:
  """Names the first of several files: `a, b, c, d, e and 3 more`."""
  named = ', '.join(map(str, names[:MAX_NAMED]))
  more = len(names) - MAX_NAMED
  return f'{named} and {more} more' if more > 0 else named


def report(failed: list[str], total: int, where: str) -> None:
  """Warns of files that cannot be decoded.

  Raises:
    UserError: More than a tenth of the files failed, or fewer than 2 are left.
  """
  if not failed:
    return
  message = (
    f'{len(failed)} of {total} files in {where} cannot be decoded: '
    f'{name_some(failed)}'
  )
  if len(failed) > MAX_FAILED_SHARE * total or total - len(failed) < 2:
    raise UserError(f'{message}; repair or remove them')
  warn(f'{message}; continuing without them')
