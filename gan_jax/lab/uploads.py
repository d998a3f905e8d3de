"""Distributions that the user draws or uploads, kept as drawings.

Pictures and points both become an image of the ink, which `drawing:FILE` reads.
An image with one row of pixels is a density in 1-D.
"""

import hashlib
import io
import re
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, UnidentifiedImageError

from gan_jax.data.toys import MAX_DRAWING_SIZE
from gan_jax.errors import UserError
from gan_jax.files import write_whole

# Limits of an upload: bytes, pixels of a picture, and points.
MAX_BYTES, MAX_PIXELS, MAX_POINTS = 2**22, 2**24, 100_000
# Pixels of the picture of uploaded points, in each direction.
POINT_PIXELS = 256
# The margin around uploaded points, as a share of their range.
MARGIN = 0.05


def add_drawing(folder: Path, raw: bytes) -> str:
  """Keeps an uploaded picture or list of points; returns its name.

  A text of numbers, with 1 or 2 in a line, is a list of points. They are moved
  and scaled to fill the plot.

  Raises:
    UserError: The upload is neither a picture nor a list of points.
  """
  if len(raw) > MAX_BYTES:
    raise UserError(f'uploads have at most {MAX_BYTES // 2**20} MiB')
  points = _read_points(raw)
  ink = _read_picture(raw) if points is None else _rasterize(points)
  if not ink.any():
    raise UserError('the drawing is empty: draw something dark')
  digest = hashlib.sha256(repr(ink.shape).encode() + ink.tobytes())
  name = digest.hexdigest()[:16]
  buffer = io.BytesIO()
  Image.fromarray(255 - ink).save(buffer, 'PNG')
  try:
    (folder / 'drawings').mkdir(parents=True, exist_ok=True)
    write_whole(folder / 'drawings' / f'{name}.png', buffer.getvalue())
  except OSError as error:
    raise UserError(f'cannot write to {folder}: {error.strerror}') from error
  return name


def drawing_path(folder: Path, name: str) -> tuple[Path, int]:
  """Returns the file of a drawing, and its number of coordinates.

  Raises:
    UserError: There is no such drawing.
  """
  path = folder / 'drawings' / f'{name}.png'
  if not re.fullmatch(r'[0-9a-f]{16}', name) or not path.is_file():
    raise UserError(
      f'there is no drawing {name[:20]!r} in {folder}: draw or upload it again'
    )
  with Image.open(path) as image:
    return path, 1 if image.height == 1 else 2


def _read_points(raw: bytes) -> Float[np.ndarray, 'n d'] | None:
  """Reads a text of numbers; None if it is not one."""
  try:
    text = raw.decode('utf-8-sig')
  except UnicodeDecodeError:
    return None
  lines = [
    re.split(r'[,;\s]+', line.strip(' \t\r,;'))
    for line in text.splitlines()
    if line.strip(' \t\r,;')
  ]
  if lines and not _are_numbers(lines[0]):
    lines = lines[1:]  # a heading
  if not lines or not all(map(_are_numbers, lines)):
    return None
  if len(lines) > MAX_POINTS:
    raise UserError(f'uploads have at most {MAX_POINTS:,} points')
  if len(lines) < 2 or {len(line) for line in lines} not in ({1}, {2}):
    raise UserError('points need 1 or 2 numbers in each line, and two lines')
  points = np.array(lines, np.float64)
  if not np.isfinite(points).all() or np.abs(points).max() > 1e9:
    raise UserError('the coordinates of points must be finite, and below 1e9')
  return points


def _are_numbers(words: list[str]) -> bool:
  try:
    return bool([float(word) for word in words])
  except ValueError:
    return False


def _rasterize(points: Float[np.ndarray, 'n d']) -> UInt8[np.ndarray, 'h w']:
  """Counts points in the pixels of a picture; returns the ink."""
  low, high = points.min(0), points.max(0)
  side = max(float((high - low).max()), 1e-9) * (1 + 2 * MARGIN)
  corner = (low + high - side) / 2
  cells = ((points - corner) / side * POINT_PIXELS).astype(int)
  cells = np.clip(cells, 0, POINT_PIXELS - 1)
  one = points.shape[1] == 1
  counts = np.zeros((1 if one else POINT_PIXELS, POINT_PIXELS))
  rows = 0 if one else POINT_PIXELS - 1 - cells[:, 1]
  np.add.at(counts, (rows, cells[:, 0]), 1)
  return np.ceil(255 * counts / counts.max()).astype(np.uint8)


def _read_picture(raw: bytes) -> UInt8[np.ndarray, 'h w']:
  """Decodes a picture; returns the ink."""
  try:
    with Image.open(io.BytesIO(raw)) as opened:
      if opened.width * opened.height > MAX_PIXELS:
        raise UserError(f'pictures have at most {MAX_PIXELS:,} pixels')
      picture = opened.convert('RGBA')
  except (
    OSError, UnidentifiedImageError, ValueError, SyntaxError,
    Image.DecompressionBombError,
  ) as error:  # fmt: skip
    raise UserError(
      'the upload is neither a picture nor lines of 1 or 2 numbers'
    ) from error
  white = Image.new('RGBA', picture.size, 'white')
  grey = Image.alpha_composite(white, picture).convert('L')
  grey.thumbnail((MAX_DRAWING_SIZE, MAX_DRAWING_SIZE))
  return 255 - np.asarray(grey)
