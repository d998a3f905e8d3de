"""Makes index batches and uint8 examples into batches, on the device."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from gan_jax.keys import Purpose, example_keys
from gan_jax.ops.resample import average_pool


def read(
  dataset: dict[str, Array],
  fed: dict[str, Any],
  key: Key[Array, ''],
  step: Int[Array, ''],
  shrink: int = 1,
  *,
  flip: bool,
  draw: Callable[[Key[Array, '']], Array] | None = None,
) -> dict[str, Any]:
  """Makes the fed examples into a batch, on the device.

  Gathers them where they lie there already, or draws them, with `draw`; makes
  every uint8 image float in [-1, 1], `shrink` times smaller by a box filter,
  and, with `flip`, mirrors each example with probability 1/2.
  """
  batch = dict(fed)
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
    images = average_pool(images, shrink).astype(jnp.float32) / 127.5 - 1
    if not flip:
      return images
    turned = jnp.flip(images, -2)
    return jnp.where(mirrored[..., None, None, None], turned, images)

  return {
    name: convert(array) if array.dtype == jnp.uint8 else array
    for name, array in batch.items()
  }
