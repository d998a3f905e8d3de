"""The augmentation pipeline in front of D: the same for reals and fakes.

The pipeline is differentiable: G's gradient passes through it. A new
augmentation is a function of (key, image) and a row in AUGMENTATIONS.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from gan_jax.errors import UserError
from gan_jax.registry import choose_or_import

Image = Float[Array, 'h w c']
# (images [n, ...], keys [n], scheduled values) -> images [n / pack, ...]
Augment = Callable[[Array, Key[Array, ' n'], Mapping[str, Any]], Array]


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
  """Shifts by up to an eighth of the size in each direction; pads with 0."""
  shifts = [int(size / 8 + 0.5) for size in image.shape[:2]]
  padded = jnp.pad(image, (*((shift, shift) for shift in shifts), (0, 0)))
  highest = jnp.array([2 * shift + 1 for shift in shifts])
  row, column = jax.random.randint(key, (2,), 0, highest)
  return jax.lax.dynamic_slice(padded, (row, column, 0), image.shape)


def cutout(key: Key[Array, ''], image: Image) -> Image:
  """Sets a square of half the size to 0; its centre is anywhere."""
  inside = []
  for axis_key, size in zip(
    jax.random.split(key), image.shape[:2], strict=True
  ):
    length = int(size / 2 + 0.5)
    centre = jax.random.randint(axis_key, (), 0, size + 1 - length % 2)
    first = centre - length // 2
    positions = jnp.arange(size)
    inside.append((first <= positions) & (positions < first + length))
  cut = inside[0][:, None] & inside[1][None, :]
  return jnp.where(cut[..., None], 0.0, image)


AUGMENTATIONS: dict[str, Callable[[Key[Array, ''], Image], Image]] = {
  'color': color,
  'cutout': cutout,
  'translation': translation,
}


def make_augment(
  augment: Sequence[str] = (), instance_noise: float = 0.0, pack: int = 1
) -> Augment:
  """The augmentation pipeline in front of D, in this order.

  Args:
    augment: Rows of AUGMENTATIONS; each image is augmented independently.
    instance_noise: Standard deviation of the Gaussian noise on each pixel
      (Sonderby et al. 2017). `game.instance_noise` of the schedule overrides
      it.
    pack: Images that D judges as one, stacked along the channels (PacGAN: Lin
      et al. 2018).
  """
  functions = [
    choose_or_import('config.game.augment', n, AUGMENTATIONS) for n in augment
  ]

  def apply(images, keys, values):
    split = partial(jax.random.split, num=len(functions) + 1)
    own = jax.vmap(split)(keys)
    for index, function in enumerate(functions):
      images = jax.vmap(function)(own[:, index], images)
    std = values.get('game.instance_noise', instance_noise)
    if not (isinstance(std, float) and std == 0):
      draw = partial(jax.random.normal, shape=images.shape[1:])
      images += std * jax.vmap(draw)(own[:, -1])
    return _packed(images, pack)

  return apply


def _packed(images: Array, pack: int) -> Array:
  n, *shape, channels = images.shape
  if n % pack:
    raise UserError(
      f'config.game.pack={pack} does not divide a batch of {n} on a device'
    )
  groups = images.reshape(n // pack, pack, *shape, channels)
  groups = jnp.moveaxis(groups, 1, -2)
  return groups.reshape(n // pack, *shape, pack * channels)
