"""CycleGAN's pool of earlier fakes, on which D is trained too.

Shrivastava et al. 2017, section 2.3; Zhu et al. 2017, section 4. The pool is
part of the game state: it is the same on any number of devices, and a run that
resumes finds it as it was.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from gan_jax.ops import axis


class ImagePool(NamedTuple):
  """A pool of images.

  Attributes:
    images: The images; the first `count` of them are fakes.
    count: The number of fakes in the pool.
  """

  images: Float[Array, 'size h w c']
  count: Int[Array, '']


def empty(size: int, shape: tuple[int, ...]) -> ImagePool:
  """Makes an empty pool of `size` images of a shape."""
  return ImagePool(jnp.zeros((size, *shape)), jnp.int32(0))


def exchange(
  pool: ImagePool,
  fakes: Float[Array, 'n h w c'],
  keys: Key[Array, ' n'],
  axis_name: str | None,
) -> tuple[Float[Array, 'n h w c'], ImagePool]:
  """Replaces half of the fakes by earlier ones, which they replace in the pool.

  In the order of the examples: until the pool is full, a fake is added to it
  and stays. Then, with probability 1/2, it takes the place of a random image of
  the pool, which is returned instead.

  Args:
    pool: The pool; of size 0: all fakes stay.
    fakes, keys: The examples of this device. The keys choose.
    axis_name: The device axis under pmap.

  Returns:
    The images for D, and the new pool, which is equal on all devices.
  """
  size, n = len(pool.images), len(fakes)
  if not size:
    return fakes, pool

  def choose(key: Key[Array, '']) -> tuple[Array, Array]:
    coin, place = jax.random.split(key)
    return jax.random.bernoulli(coin), jax.random.randint(place, (), 0, size)

  chosen = *jax.vmap(choose)(keys), fakes
  pool, images = jax.lax.scan(
    partial(_exchange_one, size), pool, axis.gather(chosen, axis_name)
  )
  if axis_name is not None:
    first = n * jax.lax.axis_index(axis_name)
    images = jax.lax.dynamic_slice_in_dim(images, first, n)
  return images, pool


def _exchange_one(
  size: int, pool: ImagePool, chosen: tuple[Array, Array, Array]
) -> tuple[ImagePool, Array]:
  """Exchanges one fake; returns the new pool and the image for D."""
  swaps, place, fake = chosen
  filling = pool.count < size
  place = jnp.where(filling, pool.count, place)
  earlier = pool.images[place]
  stored = jnp.where(filling | swaps, fake, earlier)
  image = jnp.where(swaps & ~filling, earlier, fake)
  images = pool.images.at[place].set(stored)
  return ImagePool(images, jnp.minimum(pool.count + 1, size)), image
