"""What D sees of images: augmented, in noise, packed; reals and fakes alike.

All of it can be differentiated: G's gradient comes back through it. A new
augmentation is a function of (key, image), and a row in AUGMENTATIONS.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from gan_jax.errors import UserError
from gan_jax.registry import choose

Image = Float[Array, 'h w c']
# (images [n, ...], keys [n], values of the phase) -> images [n / pack, ...]
Sight = Callable[[Array, Key[Array, ' n'], Mapping[str, Any]], Array]


def color(key: Key[Array, ''], image: Image) -> Image:
  """Brightness +- 1/2, saturation x 0 to 2, contrast x 1/2 to 3/2.

  Zhao et al. 2020 (DiffAugment), as their code has it.
  """
  brightness, saturation, contrast = jax.random.uniform(key, (3,))
  image = image + brightness - 0.5
  grey = image.mean(-1, keepdims=True)
  image = grey + 2 * saturation * (image - grey)
  mean = image.mean()
  return mean + (contrast + 0.5) * (image - mean)


def translation(key: Key[Array, ''], image: Image) -> Image:
  """Moved by up to an eighth of its size in each direction; zeros come in."""
  most = [int(side / 8 + 0.5) for side in image.shape[:2]]
  padded = jnp.pad(image, (*((side, side) for side in most), (0, 0)))
  highest = jnp.array([2 * side + 1 for side in most])
  row, column = jax.random.randint(key, (2,), 0, highest)
  return jax.lax.dynamic_slice(padded, (row, column, 0), image.shape)


def cutout(key: Key[Array, ''], image: Image) -> Image:
  """A square of half the size is zero; its centre is anywhere."""
  keys = jax.random.split(key)
  inside = []
  for one, side in zip(keys, image.shape[:2], strict=True):
    size = int(side / 2 + 0.5)
    centre = jax.random.randint(one, (), 0, side + 1 - size % 2)
    first = centre - size // 2
    places = jnp.arange(side)
    inside.append((first <= places) & (places < first + size))
  cut = inside[0][:, None] & inside[1][None, :]
  return jnp.where(cut[..., None], 0.0, image)


AUGMENTATIONS: dict[str, Callable[[Key[Array, ''], Image], Image]] = {
  'color': color,
  'cutout': cutout,
  'translation': translation,
}


def make(
  augment: Sequence[str] = (), instance_noise: float = 0.0, pack: int = 1
) -> Sight:
  """What is made of images before D sees them, in this order.

  Args:
    augment: Of AUGMENTATIONS; each image by itself.
    instance_noise: N(0, instance_noise^2) is added to each pixel (Sonderby et
      al. 2017); the schedule may have a value of that name instead.
    pack: So many images, one behind the other, are judged as one: channels of
      a larger image (PacGAN: Lin et al. 2018).
  """
  several = [choose('config.game.augment', n, AUGMENTATIONS) for n in augment]

  def see(images, keys, values):
    own = jax.vmap(partial(jax.random.split, num=len(several) + 1))(keys)
    for index, function in enumerate(several):
      images = jax.vmap(function)(own[:, index], images)
    deviation = values.get('instance_noise', instance_noise)
    if not (isinstance(deviation, float) and deviation == 0):
      draw = partial(jax.random.normal, shape=images.shape[1:])
      images += deviation * jax.vmap(draw)(own[:, -1])
    return _packed(images, pack)

  return see


def _packed(images: Array, pack: int) -> Array:
  n, *shape, channels = images.shape
  if n % pack:
    raise UserError(
      f'config.game.pack={pack} does not divide a batch of {n} on a device'
    )
  several = images.reshape(n // pack, pack, *shape, channels)
  several = jnp.moveaxis(several, 1, -2)
  return several.reshape(n // pack, *shape, pack * channels)
