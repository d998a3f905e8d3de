"""A look at what the networks will be fed, before anything is trained."""

import io
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from gan_jax import data
from gan_jax.data.on_device import read
from gan_jax.data.order import Stream
from gan_jax.data.source import Examples, Source
from gan_jax.data.toys import Toy, is_toy, toy_of
from gan_jax.errors import UserError
from gan_jax.ops.pixels import to_uint8
from gan_jax.plots.grid import to_pil
from gan_jax.training.check import check_config

ROWS, COLUMNS = 5, 8
# Statistics are those of so many images, at most.
MEASURED, MOST_BYTES = 4096, 2**28
# Of the labels, so many are named.
NAMED = 10


def preview(config: ConfigDict, workdir: str | Path) -> None:
  """Draws the first images of the stream as the networks will see them.

  Cropped, resized, and mirrored where `data.flip` says so, with their labels,
  to WORKDIR.preview.png; prints statistics.
  """
  check_config(config)
  source = data.make(config)
  path = epath.Path(f'{str(workdir).rstrip("/")}.preview.png')
  print(data.describe(config, source))
  if is_toy(config.data.source):
    _save(_scatter(source, toy_of(config.data.source)), path)
    return
  stream = Stream(config.seed, source.size)
  measured = min(MEASURED, source.size, MOST_BYTES // source.example_bytes)
  taken = source.fetch(stream.indices(np.arange(max(measured, 1))))
  first = {name: array[: ROWS * COLUMNS] for name, array in taken.items()}
  images = _as_read(first, config)
  print(statistics(taken, source.classes))
  _save(_draw(images, captions(first, source.classes)), path)


def _save(figure: Figure, path: epath.Path) -> None:
  drawn = io.BytesIO()
  figure.savefig(drawn)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(drawn.getvalue())
  except OSError as error:
    raise UserError(f'cannot write {path}: {error.strerror}') from error
  print(f'Preview: {path}')


def _as_read(examples: Examples, config: ConfigDict) -> np.ndarray:
  """The examples as the first iteration reads them, uint8 again."""
  number = jnp.arange(len(examples['images']), dtype=jnp.int32)
  fed = {**jax.tree.map(jnp.asarray, examples), 'example': number}
  reader = jax.jit(partial(read, flip=config.data.flip))
  batch = reader({}, fed, jax.random.key(config.seed), jnp.int32(0))
  return to_uint8(batch['images'])


def captions(examples: Examples, classes: tuple[str, ...]) -> list[str]:
  """What stands under each image: its class, or its rarest attributes."""
  labels = examples.get('labels')
  if labels is None:
    return [''] * len(examples['images'])
  if labels.ndim == 1:
    return [classes[label] for label in labels]
  rarest = np.argsort(labels.mean(0), kind='stable')
  has = [[classes[i] for i in rarest if row[i]] for row in labels]
  return ['\n'.join(names[:2]) for names in has]


def statistics(examples: Examples, classes: tuple[str, ...]) -> str:
  """Mean and deviation of each channel, 0 to 1, and the labels, in a line."""
  images = examples['images']
  levels = np.arange(256) / 255
  # Exact, for any number of pixels: the histogram of each channel.
  counts = [
    np.bincount(images[..., c].ravel(), minlength=256)
    for c in range(images.shape[-1])
  ]
  shares = np.array(counts) / images[..., 0].size
  means = shares @ levels
  stds = np.sqrt(np.maximum(shares @ levels**2 - means**2, 0))
  several = lambda x: ', '.join(f'{value:.3f}' for value in x)
  line = (
    f'Of {len(images):,} images: mean {several(means)}; '
    f'std {several(stds)}; '
    f'from {images.min() / 255:.3f} to {images.max() / 255:.3f}'
  )
  labels = examples.get('labels')
  if labels is None:
    return f'{line}; no labels'
  if labels.ndim == 1:
    labels = labels[:, None] == np.arange(len(classes))
  shares = labels.mean(0)
  named = np.argsort(-shares, kind='stable')[:NAMED]
  listed = ', '.join(f'{classes[i]} {shares[i]:.1%}' for i in named)
  return f'{line}; labels: {listed}'


def _scatter(source: Source, toy: Toy) -> Figure:
  """Points of the plane, or on the line how many there are where."""
  points = source.fetch(np.arange(source.size))['images'][:, 0, 0]
  figure = Figure((5, 5), layout='constrained')
  axes = figure.subplots()
  if toy.dim == 1:
    axes.hist(points[:, 0], 100, range=(-toy.limit, toy.limit), density=True)
  else:
    axes.plot(*points.T, '.', ms=1)
    axes.set(aspect='equal', ylim=(-toy.limit, toy.limit))
  axes.set(xlim=(-toy.limit, toy.limit))
  return figure


def _draw(images: np.ndarray, under: list[str]) -> Figure:
  figure = Figure((1.5 * COLUMNS, 1.7 * ROWS), layout='constrained')
  for axes in figure.subplots(ROWS, COLUMNS).flat:
    axes.axis('off')
  for axes, image, caption in zip(figure.axes, images, under, strict=False):
    axes.imshow(to_pil(image), cmap='gray', vmin=0, vmax=255)
    axes.set_title(
      caption, fontsize=8, y=-0.05, pad=0, va='top', parse_math=False
    )
  return figure
