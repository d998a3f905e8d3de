"""On-device preprocessing: indices or uint8 examples become a batch."""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from gan_jax.data.source import Source, part_key, prefixed
from gan_jax.keys import Purpose, example_keys
from gan_jax.ops.resample import average_pool

# The types of stored images, and of sums of their pixels.
IMAGES = jnp.uint8, jnp.uint16, jnp.uint32


def read(
  dataset: dict[str, Any],
  index_batch: dict[str, Any],
  key: Key[Array, ''],
  step: Int[Array, ''],
  downsample: int = 1,
  *,
  flip: bool,
  rotate: bool = False,
  draw: Callable[[Key[Array, '']], Any] | None = None,
  crop: int | None = None,
  parts: Collection[str] = (),
) -> dict[str, Any]:
  """Makes a batch from indices or uint8 examples, on the device.

  Gathers the examples from the resident data set, or draws new ones. Crops and
  mirrors uint8 images, all images of a pair alike, and converts them to float
  in [-1, 1].

  Args:
    dataset: All examples, if they are resident; else {}. Those of a joined
      source are by the names of its parts.
    index_batch: 'example': the positions of the examples in the iteration, from
      which their keys are derived; and either 'index', their indices in
      `dataset`, or the examples themselves.
    key: The key of the run.
    step: The iteration.
    downsample: Average-pools images by this factor. Those of uint16 and uint32
      are already the sums over squares of this size (`Source.fetch_sums`).
    flip: Whether to mirror each image with probability 1/2.
    rotate: Whether to rotate each image by a random number of quarter turns.
    draw: (key) -> a new image, or images by name; None: the examples are not
      drawn.
    crop: The size of the random square that is cropped; None: the whole image.
    parts: The names of the sources of a joined source. Their images are
      cropped and mirrored independently.
  """
  batch = dict(index_batch)
  if 'index' in batch:
    batch.update(_gather(dataset, batch.pop('index')))
  examples = batch['example']
  keys = example_keys(key, Purpose.READ, examples.reshape(-1), step)
  if draw is not None:
    drawn = jax.vmap(draw)(keys)
    drawn = drawn if isinstance(drawn, dict) else {'images': drawn}
    shaped = lambda x: x.reshape(*examples.shape, *x.shape[1:])
    batch.update({name: shaped(x) for name, x in drawn.items()})

  def convert(name: str, images: Array) -> Array:
    own = jax.vmap(partial(part_key, name))(keys) if name in parts else keys
    if crop is not None:
      images = _crop(images, own, crop)
    if images.dtype == jnp.uint8:
      images = average_pool(images, downsample).astype(jnp.float32)
    else:  # sums, of the same average
      images = images.astype(jnp.float32) / downsample**2
    images = images / 127.5 - 1
    if flip:
      mirrored = jax.vmap(jax.random.bernoulli)(own).reshape(examples.shape)
      flipped = jnp.flip(images, -2)
      images = jnp.where(mirrored[..., None, None, None], flipped, images)
    return _rotate(images, own) if rotate else images

  return {
    name: convert(name, array) if array.dtype in IMAGES else array
    for name, array in batch.items()
  }


def make_reader(config: Any, source: Source) -> Callable[..., dict[str, Any]]:
  """Makes `read` with the settings of `config.data` for a source."""
  data = config.data
  cropped = data.get('load_resolution') is not None
  return partial(
    read,
    flip=data.flip,
    rotate=data.get('rotate', False),
    draw=source.draw,
    crop=data.resolution if cropped else None,
    parts=tuple(source.parts),
  )


def _gather(dataset: dict[str, Any], index: Any) -> dict[str, Any]:
  """Gathers examples by index, or by the indices of each part."""
  if not isinstance(index, dict):
    return {name: array[index] for name, array in dataset.items()}
  gathered = {}
  for name, rows in index.items():
    gathered.update(prefixed(name, _gather(dataset[name], rows)))
  return gathered


def _crop(images: Array, keys: Key[Array, ' n'], size: int) -> Array:
  """Crops a random square of each image, at a position from its key."""
  *examples, height, width, channels = images.shape

  def crop_one(image, key):
    highest = jnp.array([height - size + 1, width - size + 1])
    key = jax.random.fold_in(key, 1)  # independent of mirroring
    row, column = jax.random.randint(key, (2,), 0, highest)
    shape = size, size, channels
    return jax.lax.dynamic_slice(image, (row, column, 0), shape)

  flat = images.reshape(-1, height, width, channels)
  return jax.vmap(crop_one)(flat, keys).reshape(*examples, size, size, channels)


def _rotate(images: Array, keys: Key[Array, ' n']) -> Array:
  """Rotates each square image by 0, 1, 2 or 3 quarter turns, from its key."""

  def turns(key: Key[Array, '']) -> Array:
    key = jax.random.fold_in(key, 2)  # independent of mirroring and cropping
    return jax.random.bernoulli(key, shape=(2,))

  half, quarter = jnp.moveaxis(jax.vmap(turns)(keys), 1, 0).reshape(
    2, *images.shape[:-3], 1, 1, 1
  )
  images = jnp.where(half, jnp.flip(images, (-3, -2)), images)
  turned = jnp.flip(jnp.swapaxes(images, -3, -2), -3)
  return jnp.where(quarter, turned, images)


def read_unflipped(
  source: Source, indices: Any, examples: np.ndarray
) -> dict[str, Any]:
  """Fetches the examples at `indices` as a batch, without flips and crops.

  `examples` are their positions in the batch. Keys are derived from them later,
  by `sample_inputs`.
  """
  fetched = dict(source.fetch(indices))
  fetched['example'] = examples.astype(np.int32)
  fetched = jax.tree.map(jnp.asarray, fetched)
  return read({}, fetched, jax.random.key(0), jnp.int32(0), flip=False)
