"""Shows the training data as the networks will see it, before training."""

import io
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

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
from gan_jax.data.toys import Toy
from gan_jax.errors import UserError
from gan_jax.ops.pixels import to_uint8
from gan_jax.plots.grid import to_pil
from gan_jax.training.check import check_config

ROWS, COLUMNS = 5, 8
# Statistics use at most this many images, and this many bytes.
MAX_MEASURED, MAX_BYTES = 4096, 2**28
# Statistics list this many labels, the most frequent first.
MAX_LABELS = 10


def preview(config: ConfigDict, workdir: str | Path) -> None:
  """Draws the first images of the stream to WORKDIR.preview.png.

  The images are cropped, resized and, if `data.flip` is set, mirrored, as in
  training; their labels are written below. Prints statistics.
  """
  check_config(config)
  source = data.make(config)
  print(data.describe(config, source))
  parts = source.parts or {'': source}
  for name, part in parts.items():
    suffix = f'.{name}' * bool(name)
    path = epath.Path(f'{str(workdir).rstrip("/")}.preview{suffix}.png')
    if part.toy is not None:
      _save(_scatter(part, part.toy), path)
    else:
      _preview_images(config, part, name, path)


def _preview_images(
  config: ConfigDict, source: Source, name: str, path: epath.Path
) -> None:
  """Draws the first images of a source, and prints statistics."""
  stream = Stream(config.seed, source.size, name=name, blocks=source.blocks)
  measured = min(MAX_MEASURED, source.size, MAX_BYTES // source.example_bytes)
  taken = source.fetch(stream.indices(np.arange(max(measured, 1))))
  first = {name: array[: ROWS * COLUMNS] for name, array in taken.items()}
  images = _preprocess(first, config)
  print(statistics({**taken, 'images': _side_by_side(taken)}, source.classes))
  _save(_draw(images, captions(first, source.classes)), path)


def _save(figure: Figure, path: epath.Path) -> None:
  encoded = io.BytesIO()
  figure.savefig(encoded)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded.getvalue())
  except OSError as error:
    raise UserError(f'cannot write {path}: {error.strerror}') from error
  print(f'Preview: {path}')


def _preprocess(examples: Examples, config: ConfigDict) -> np.ndarray:
  """Preprocesses examples as in the first iteration; returns uint8 images."""
  number = np.arange(len(_side_by_side(examples)), dtype=np.int32)
  inputs = {**jax.tree.map(jnp.asarray, examples), 'example': number}
  reader = jax.jit(partial(read, flip=config.data.flip))
  batch = reader({}, inputs, jax.random.key(config.seed), jnp.int32(0))
  return to_uint8(_side_by_side(batch))


def _side_by_side(examples: Mapping[str, Any]) -> np.ndarray:
  """Returns the images of examples; those of a pair side by side."""
  return np.concatenate([x for x in examples.values() if x.ndim == 4], axis=2)


def captions(examples: Examples, classes: tuple[str, ...]) -> list[str]:
  """Returns the caption of each image: its class, or its rarest attributes."""
  labels = examples.get('labels')
  if labels is None:
    return [''] * len(_side_by_side(examples))
  if labels.ndim == 1:
    return [classes[label] for label in labels]
  rarest = np.argsort(labels.mean(0), kind='stable')
  has = [[classes[i] for i in rarest if row[i]] for row in labels]
  return ['\n'.join(names[:2]) for names in has]


def statistics(examples: Examples, classes: tuple[str, ...]) -> str:
  """Describes the channels (values in [0, 1]) and the labels, in one line."""
  images = examples['images']
  levels = np.arange(256) / 255
  # The histogram of each channel gives exact sums for any number of pixels.
  counts = [
    np.bincount(images[..., c].ravel(), minlength=256)
    for c in range(images.shape[-1])
  ]
  shares = np.array(counts) / images[..., 0].size
  means = shares @ levels
  stds = np.sqrt(np.maximum(shares @ levels**2 - means**2, 0))
  listed = lambda x: ', '.join(f'{value:.3f}' for value in x)
  line = (
    f'Statistics of {len(images):,} images: mean {listed(means)}; '
    f'std {listed(stds)}; '
    f'range {images.min() / 255:.3f} to {images.max() / 255:.3f}'
  )
  labels = examples.get('labels')
  if labels is None:
    return f'{line}; no labels'
  if labels.ndim == 1:
    labels = labels[:, None] == np.arange(len(classes))
  shares = labels.mean(0)
  frequent = np.argsort(-shares, kind='stable')[:MAX_LABELS]
  labels = ', '.join(f'{classes[i]} {shares[i]:.1%}' for i in frequent)
  return f'{line}; labels: {labels}'


def _scatter(source: Source, toy: Toy) -> Figure:
  """Draws points in 2-D, or the histogram of points in 1-D."""
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


def _draw(images: np.ndarray, image_captions: list[str]) -> Figure:
  figure = Figure((1.5 * COLUMNS, 1.7 * ROWS), layout='constrained')
  for axes in figure.subplots(ROWS, COLUMNS).flat:
    axes.axis('off')
  for axes, image, caption in zip(
    figure.axes, images, image_captions, strict=False
  ):
    axes.imshow(to_pil(image), cmap='gray', vmin=0, vmax=255)
    axes.set_title(
      caption, fontsize=8, y=-0.05, pad=0, va='top', parse_math=False
    )
  return figure
