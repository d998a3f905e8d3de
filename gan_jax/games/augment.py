"""The augmentation pipeline in front of D, for both reals and fakes.

The pipeline is differentiable: G's gradient passes through it. A new
augmentation is a function (key, image) -> image and an entry in AUGMENTATIONS.
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
  """Changes brightness, saturation and contrast.

  Adds U(-1/2, 1/2) to the brightness; multiplies the saturation by U(0, 2) and
  the contrast by U(1/2, 3/2). Zhao et al. 2020 (DiffAugment), as in their code.
  """
  brightness, saturation, contrast = jax.random.uniform(key, (3,))
  image = image + brightness - 0.5
  grey = image.mean(-1, keepdims=True)
  image = grey + 2 * saturation * (image - grey)
  mean = image.mean()
  return mean + (contrast + 0.5) * (image - mean)


def mirror(key: Key[Array, ''], image: Image) -> Image:
  """Mirrors horizontally with probability 1/2."""
  return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def translation(key: Key[Array, ''], image: Image) -> Image:
  """Translates by up to 1/8 of the size in each direction, padding with 0.

  Zhao et al. 2020 (DiffAugment).
  """
  shifts = [int(size / 8 + 0.5) for size in image.shape[:2]]
  padded = jnp.pad(image, (*((shift, shift) for shift in shifts), (0, 0)))
  highest = jnp.array([2 * shift + 1 for shift in shifts])
  row, column = jax.random.randint(key, (2,), 0, highest)
  return jax.lax.dynamic_slice(padded, (row, column, 0), image.shape)


def cutout(key: Key[Array, ''], image: Image) -> Image:
  """Sets a random square of half the size to 0.

  The square may extend beyond the image. Zhao et al. 2020 (DiffAugment).
  """
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
  'mirror': mirror,
  'translation': translation,
}


def make_augment(
  augment: Sequence[str] = (), instance_noise: float = 0.0, pack: int = 1
) -> Augment:
  """Makes the augmentation pipeline; its steps have the order of the arguments.

  Args:
    augment: Keys of AUGMENTATIONS; each image is augmented independently.
    instance_noise: Standard deviation of the Gaussian noise on each pixel
      (Sonderby et al. 2017). `game.instance_noise` of the schedule overrides
      it.
    pack: Number of images that are stacked along the channels into one input
      of D (Lin et al. 2018, PacGAN).

  Raises:
    UserError: An augmentation is unknown.
  """
  functions = [
    choose_or_import('config.game.augment', n, AUGMENTATIONS) for n in augment
  ]

  def apply(images, keys, values):
    split = partial(jax.random.split, num=len(functions) + 1)
    step_keys = jax.vmap(split)(keys)
    for index, function in enumerate(functions):
      images = jax.vmap(function)(step_keys[:, index], images)
    std = values.get('game.instance_noise', instance_noise)
    if not (isinstance(std, float) and std == 0):
      sample_noise = partial(jax.random.normal, shape=images.shape[1:])
      images += std * jax.vmap(sample_noise)(step_keys[:, -1])
    return _pack(images, pack)

  return apply


def _pack(images: Array, pack: int) -> Array:
  """Stacks groups of consecutive images along the channels."""
  n, *shape, channels = images.shape
  if n % pack:
    raise UserError(
      f'config.game.pack={pack} does not divide the batch size per device, {n}'
    )
  groups = images.reshape(n // pack, pack, *shape, channels)
  groups = jnp.moveaxis(groups, 1, -2)
  return groups.reshape(n // pack, *shape, pack * channels)
