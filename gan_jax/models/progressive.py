"""The networks of progressive growing (Karras et al. 2018, table 2).

Both networks start at 4x4. Level k adds an upsampling block to G and a
downsampling block to D. While a level fades in, it is blended with the level
below: images = (1 - alpha) old + alpha new. Stage 2k is the stable stage of
level k; in stage 2k - 1, level k fades in. A stage computes nothing at a higher
resolution, and a stable stage does not use the level below for blending.

One pytree of parameters holds all levels: the blocks '4x4', '8x8', ..., and
the layers between blocks and images, '8x8_to_rgb' and '8x8_from_rgb'.
"""

import math
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from gan_jax.errors import UserError
from gan_jax.models.layers import (
  EqualConv,
  EqualDense,
  minibatch_stddev,
  pixel_norm,
)
from gan_jax.ops.resample import average_pool, upsample_nearest

Images = Float[Array, 'n h w c']

leaky_relu = partial(nn.leaky_relu, negative_slope=0.2)


def last_level(resolution: int) -> int:
  """Returns the level of a resolution: the number of doublings from 4x4.

  Raises:
    UserError: The resolution is not supported.
  """
  level = round(math.log2(max(resolution, 4) / 4))
  if 4 * 2**level != resolution or resolution > 1024:
    raise UserError(
      'progressive growing supports 4, 8, 16, ... 512 or 1024 pixels, not '
      f'{resolution}: set config.data.resolution'
    )
  return level


def level_of(stage: int) -> tuple[int, bool]:
  """Returns the level of a stage and whether it fades in."""
  return (stage + 1) // 2, stage % 2 == 1


def size_of(level: int) -> int:
  """Returns the size in pixels: 4, 8, 16, ..."""
  return 4 * 2**level


def is_used(name: str, stage: int) -> bool:
  """Returns whether a stage uses the block, to_rgb or from_rgb `name`."""
  level, fading = level_of(stage)
  pixels, _, rgb = name.partition('_')
  block_level = last_level(int(pixels.partition('x')[0]))
  if rgb:
    return block_level == level or (fading and block_level == level - 1)
  return block_level <= level


def _name(level: int, rgb: str = '') -> str:
  return f'{size_of(level)}x{size_of(level)}{rgb}'


def _width(level: int, features: int, most_features: int) -> int:
  """Returns the feature maps of a level; level -1 is D's last dense layer.

  min(features / 2^(level + 1), most_features).
  """
  return min(features // 2 ** (level + 1), most_features)


class _InputBlock(nn.Module):
  """The first block of G: z to 4x4."""

  width: int
  dtype: Any

  @nn.compact
  def __call__(self, z: Float[Array, 'n d']) -> Images:
    # The gain of the reference implementation.
    gain = math.sqrt(2) / 4
    x = EqualDense(16 * self.width, gain, self.dtype, 16, name='dense')(z)
    x = pixel_norm(leaky_relu(x.reshape(-1, 4, 4, self.width)))
    x = EqualConv(self.width, 3, dtype=self.dtype, name='conv')(x)
    return pixel_norm(leaky_relu(x))


class _UpBlock(nn.Module):
  """An upsampling block of G."""

  width: int
  dtype: Any

  @nn.compact
  def __call__(self, x: Images) -> Float[Array, 'n H W d']:
    x = upsample_nearest(x, 2)
    for name in ('conv_0', 'conv_1'):
      x = EqualConv(self.width, 3, dtype=self.dtype, name=name)(x)
      x = pixel_norm(leaky_relu(x))
    return x


class _DownBlock(nn.Module):
  """A downsampling block of D."""

  width: int
  width_below: int
  dtype: Any

  @nn.compact
  def __call__(self, x: Images) -> Float[Array, 'n H W d']:
    for name, width in (('conv_0', self.width), ('conv_1', self.width_below)):
      x = leaky_relu(EqualConv(width, 3, dtype=self.dtype, name=name)(x))
    return average_pool(x, 2)


class _OutputBlock(nn.Module):
  """The last block of D: 4x4 to logits."""

  width: int
  width_below: int
  group: int
  dtype: Any
  axis_name: str | None

  @nn.compact
  def __call__(self, x: Images) -> Float[Array, ' n']:
    # Parameters are initialized outside of pmap, where no axis exists.
    axis_name = None if self.is_initializing() else self.axis_name
    x = minibatch_stddev(x, self.group, axis_name)
    x = leaky_relu(EqualConv(self.width, 3, dtype=self.dtype, name='conv')(x))
    x = x.reshape(len(x), -1)
    dense = EqualDense(self.width_below, dtype=self.dtype, name='dense')
    x = leaky_relu(dense(x))
    return EqualDense(1, 1.0, name='logit')(x)[:, 0]


class Generator(nn.Module):
  """Maps z to images of the stage's resolution, without an output activation.

  Attributes:
    channels: Channels of the images.
    features, most_features: A level has min(features / 2^(level + 1),
      most_features) feature maps.
    remat: Whether to recompute the activations inside blocks in the backward
      pass, which saves memory and costs time. It has no effect on CPUs.
    dtype: Computation dtype; the parameters are float32.
  """

  channels: int
  features: int = 8192
  most_features: int = 512
  remat: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    z: Float[Array, 'n d'],
    keys: Key[Array, ' n'],
    train: bool,
    stage: int,
    alpha: ArrayLike = 1.0,
  ) -> Images:
    """Generates images at `stage`, faded in by `alpha`.

    Initialize at the last stage: that creates the parameters of all levels.
    """
    initializing = self.is_initializing()
    level, fading = level_of(stage)

    def block(k: int, x: Array) -> Array:
      module = _InputBlock if k == 0 else _UpBlock
      module = nn.remat(module) if self.remat else module
      width = _width(k, self.features, self.most_features)
      return module(width, self.dtype, name=_name(k))(x)

    def to_rgb(k: int, x: Array) -> Array:
      name = _name(k, '_to_rgb')
      conv = EqualConv(self.channels, 1, 1.0, self.dtype, name=name)
      return conv(x).astype(jnp.float32)

    x = pixel_norm(z.astype(self.dtype))
    images = old = None
    for k in range(level + 1):
      x = block(k, x)
      if k == level:
        images = to_rgb(k, x)
      elif initializing or (fading and k == level - 1):
        old = to_rgb(k, x)
    return blend(upsample_nearest(old, 2), images, alpha) if fading else images


class Discriminator(nn.Module):
  """Maps images of the stage's resolution to logits.

  Attributes:
    group: Group size of the minibatch standard deviation.
    axis_name: The device axis under pmap.
    Others: See `Generator`.
  """

  features: int = 8192
  most_features: int = 512
  group: int = 4
  remat: bool = False
  dtype: Any = jnp.float32
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self,
    images: Images,
    keys: Key[Array, ' n'],
    train: bool,
    stage: int,
    alpha: ArrayLike = 1.0,
  ) -> Float[Array, ' n']:
    """Computes logits; see `Generator.__call__` for `stage` and `alpha`."""
    level, fading = level_of(stage)

    def width(k: int) -> int:
      return _width(k, self.features, self.most_features)

    def from_rgb(k: int, images: Array) -> Array:
      name = _name(k, '_from_rgb')
      conv = EqualConv(width(k), 1, dtype=self.dtype, name=name)
      return leaky_relu(conv(images.astype(self.dtype)))

    remat = nn.remat if self.remat else lambda module: module
    x = from_rgb(level, images)
    for k in range(level, 0, -1):
      down_block = remat(_DownBlock)
      x = down_block(width(k), width(k - 1), self.dtype, name=_name(k))(x)
      images = average_pool(images, 2)
      if self.is_initializing():
        from_rgb(k - 1, images)
      elif fading and k == level:
        x = blend(from_rgb(k - 1, images), x, alpha)
    output_block = remat(_OutputBlock)(
      width(0), width(-1), self.group, self.dtype, self.axis_name, name=_name(0)
    )
    return output_block(x).astype(jnp.float32)


def blend(old: Array, new: Array, alpha: ArrayLike) -> Array:
  """Blends linearly: (1 - alpha) old + alpha new."""
  # In float32: bfloat16 has no values between 0.996 and 1.
  dtype = new.dtype
  old, new = old.astype(jnp.float32), new.astype(jnp.float32)
  return (old + alpha * (new - old)).astype(dtype)
