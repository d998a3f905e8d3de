"""On-device preprocessing: index batches and uint8 examples become batches."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from gan_jax.data.source import Source
from gan_jax.keys import Purpose, example_keys
from gan_jax.ops.resample import average_pool


def read(
  dataset: dict[str, Array],
  index_batch: dict[str, Any],
  key: Key[Array, ''],
  step: Int[Array, ''],
  downsample: int = 1,
  *,
  flip: bool,
  draw: Callable[[Key[Array, '']], Array] | None = None,
) -> dict[str, Any]:
  """Makes a batch of an index batch, on the device.

  Gathers the examples from the resident data set, or draws new ones. Converts
  uint8 images to float in [-1, 1].

  Args:
    dataset: All examples, if they are resident; else {}.
    index_batch: 'example': the numbers of the examples in the iteration; and
      either 'index', their indices in `dataset`, or the examples themselves.
    key: The key of the run.
    step: The iteration.
    downsample: Average-pools images by this factor.
    flip: Whether to mirror each image with probability 1/2.
    draw: (key) -> a new image; None: the examples are not drawn.
  """
  batch = dict(index_batch)
  if 'index' in batch:
    index = batch.pop('index')
    batch.update({name: array[index] for name, array in dataset.items()})
  examples = batch['example']
  keys = example_keys(key, Purpose.READ, examples.reshape(-1), step)
  if draw is not None:
    images = jax.vmap(draw)(keys)
    batch['images'] = images.reshape(*examples.shape, *images.shape[1:])
  mirrored = jax.vmap(jax.random.bernoulli)(keys).reshape(examples.shape)

  def convert(images: Array) -> Array:
    images = average_pool(images, downsample).astype(jnp.float32) / 127.5 - 1
    if not flip:
      return images
    flipped = jnp.flip(images, -2)
    return jnp.where(mirrored[..., None, None, None], flipped, images)

  return {
    name: convert(array) if array.dtype == jnp.uint8 else array
    for name, array in batch.items()
  }


def read_unflipped(
  source: Source, indices: np.ndarray, examples: np.ndarray
) -> dict[str, Any]:
  """Fetches the examples at `indices` as a batch, without flips.

  `examples` are their numbers in the batch, which choose the random keys.
  """
  fetched = source.fetch(indices)
  fetched['example'] = examples.astype(np.int32)
  fetched = jax.tree.map(jnp.asarray, fetched)
  return read({}, fetched, jax.random.key(0), jnp.int32(0), flip=False)
