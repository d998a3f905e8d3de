"""Shows samples beside the nearest training images."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import numpy as np
from jaxtyping import Array, UInt8
from PIL import Image

from gan_jax.bounds import check_counts
from gan_jax.errors import UserError
from gan_jax.plots.grid import show

if TYPE_CHECKING:
  from gan_jax.runs.run import Run

# Images whose features are computed at once, and training images that are
# compared with samples at once.
BATCH, CHUNK = 256, 4096


def nearest(
  run: 'Run',
  n: int = 8,
  seed: int = 0,
  k: int = 4,
  features: str | Callable[..., Array] | None = None,
) -> Image.Image:
  """Shows `n` samples, each followed by its `k` nearest training images.

  A sample that the generator has memorized equals its nearest image.

  Args:
    n, seed: As for `sample`.
    k: The number of training images in a row; at most all.
    features: The features whose distance counts: a name as in
      `config.evaluation.features`, or a function (uint8 images [n, h, w, c])
      -> [n, d]. None: the features of the run's config, else the pixels.
  """
  if run.has_points:
    raise UserError('run.nearest needs images, but this run generates points')
  check_counts(n=n, k=k)
  # (Heavy, and not needed for samples.)
  from gan_jax import data
  from gan_jax.data.source import entry_source
  from gan_jax.metrics import nearest_neighbors
  from gan_jax.metrics.features import make

  network = make(features or run.features_of_config() or 'pixels')
  extract_batch = jax.jit(network.extract)

  def extract(images: UInt8[np.ndarray, 'n h w c']) -> np.ndarray:
    starts = range(0, len(images), BATCH)
    parts = [
      extract_batch(network.weights, images[i : i + BATCH]) for i in starts
    ]
    return np.concatenate([part['features'] for part in parts])

  source = data.make(run.config)
  source = entry_source(source, run.main_output.reference)
  k = min(k, source.size)
  samples = run.sample(n, seed)
  sample_features, parts = extract(samples), []
  for first in range(0, source.size, CHUNK):
    rows = np.arange(first, min(first + CHUNK, source.size))
    known = extract(source.fetch(rows)['images'])
    part = nearest_neighbors(sample_features, known, min(k, len(rows)))
    parts.append((part.distances, rows[part.indices]))
  distances = np.concatenate([part[0] for part in parts], axis=1)
  found = np.concatenate([part[1] for part in parts], axis=1)
  order = np.argsort(distances, axis=1, kind='stable')[:, :k]
  found = np.take_along_axis(found, order, axis=1)
  shown = source.fetch(found.ravel())['images']
  shown = shown.reshape(n, k, *samples.shape[1:])
  rows = np.concatenate([samples[:, None], shown], axis=1)
  return show(rows.reshape(-1, *samples.shape[1:]), columns=1 + k)
