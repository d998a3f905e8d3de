"""The networks of progressive growing (Karras et al. 2018, table 2).

Both begin at 4x4. Level k adds to G a block that doubles the resolution, and to
D one that halves it; while a level fades in, the images of the level below are
mixed in: images = (1 - alpha) old + alpha new. Stage 2k is level k, stable, and
stage 2k - 1 level k fading in. At a stage nothing is computed at a higher
resolution, and a stable one has no branch of the level below.

One tree of parameters holds all levels: '4x4', '8x8', ... are the blocks,
'8x8_to_rgb' and '8x8_from_rgb' what leads from them to images and back.
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
  """How many doublings lead from 4x4 to `resolution`."""
  level = round(math.log2(max(resolution, 4) / 4))
  if 4 * 2**level != resolution or resolution > 1024:
    raise UserError(
      'progressive growing ends at 4, 8, 16, ... 512 or 1024 pixels, not at '
      f'{resolution}: set config.data.resolution'
    )
  return level


def level_of(stage: int) -> tuple[int, bool]:
  """The level of a stage, and whether it fades in."""
  return (stage + 1) // 2, stage % 2 == 1


def size_of(level: int) -> int:
  """Pixels: 4, 8, 16, ..."""
  return 4 * 2**level


def is_used(name: str, stage: int) -> bool:
  """Whether a block, to_rgb or from_rgb of that name is used at a stage."""
  level, fading = level_of(stage)
  pixels, _, rgb = name.partition('_')
  own = last_level(int(pixels.partition('x')[0]))
  if rgb:
    return own == level or (fading and own == level - 1)
  return own <= level


def _name(level: int, rgb: str = '') -> str:
  return f'{size_of(level)}x{size_of(level)}{rgb}'


def _width(level: int, features: int, most_features: int) -> int:
  """min(features / 2^(level + 1), most_features); of level -1: D's end."""
  return min(features // 2 ** (level + 1), most_features)


class _First(nn.Module):
  """z -> 4x4."""

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


class _Doubling(nn.Module):
  """A block of G: twice the resolution."""

  width: int
  dtype: Any

  @nn.compact
  def __call__(self, x: Images) -> Float[Array, 'n H W d']:
    x = upsample_nearest(x, 2)
    for name in ('conv_0', 'conv_1'):
      x = EqualConv(self.width, 3, dtype=self.dtype, name=name)(x)
      x = pixel_norm(leaky_relu(x))
    return x


class _Halving(nn.Module):
  """A block of D: half the resolution."""

  width: int
  width_below: int
  dtype: Any

  @nn.compact
  def __call__(self, x: Images) -> Float[Array, 'n H W d']:
    for name, width in (('conv_0', self.width), ('conv_1', self.width_below)):
      x = leaky_relu(EqualConv(width, 3, dtype=self.dtype, name=name)(x))
    return average_pool(x, 2)


class _Last(nn.Module):
  """4x4 -> logits."""

  width: int
  width_below: int
  group: int
  dtype: Any
  axis_name: str | None

  @nn.compact
  def __call__(self, x: Images) -> Float[Array, ' n']:
    # (The networks are made outside of the devices' axis.)
    axis_name = None if self.is_initializing() else self.axis_name
    x = minibatch_stddev(x, self.group, axis_name)
    x = leaky_relu(EqualConv(self.width, 3, dtype=self.dtype, name='conv')(x))
    x = x.reshape(len(x), -1)
    dense = EqualDense(self.width_below, dtype=self.dtype, name='dense')
    x = leaky_relu(dense(x))
    return EqualDense(1, 1.0, name='logit')(x)[:, 0]


class Generator(nn.Module):
  """z -> images of the stage's resolution, of any values.

  Attributes:
    channels: Of the images.
    features, most_features: A level has min(features / 2^(level + 1),
      most_features) feature maps.
    remat: Whether backward passes compute what is inside a block again instead
      of keeping it: less memory, more work. (XLA for CPUs undoes it.)
    dtype: What it computes in; the parameters are float32.
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
    """The stage, and how far it has faded in; made at the last, it has all."""
    making = self.is_initializing()
    level, fading = level_of(stage)

    def block(k: int, x: Array) -> Array:
      kind = _First if k == 0 else _Doubling
      kind = nn.remat(kind) if self.remat else kind
      width = _width(k, self.features, self.most_features)
      return kind(width, self.dtype, name=_name(k))(x)

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
      elif making or (fading and k == level - 1):
        old = to_rgb(k, x)
    return blend(upsample_nearest(old, 2), images, alpha) if fading else images


class Discriminator(nn.Module):
  """Images of the stage's resolution -> logits.

  Attributes:
    group: Of the minibatch standard deviation.
    axis_name: The devices' axis under pmap.
    The others: as the generator's.
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
    """As the generator's."""
    level, fading = level_of(stage)

    def width(k: int) -> int:
      return _width(k, self.features, self.most_features)

    def from_rgb(k: int, images: Array) -> Array:
      name = _name(k, '_from_rgb')
      conv = EqualConv(width(k), 1, dtype=self.dtype, name=name)
      return leaky_relu(conv(images.astype(self.dtype)))

    again = nn.remat if self.remat else lambda kind: kind
    x = from_rgb(level, images)
    for k in range(level, 0, -1):
      halve = again(_Halving)
      x = halve(width(k), width(k - 1), self.dtype, name=_name(k))(x)
      images = average_pool(images, 2)
      if self.is_initializing():
        from_rgb(k - 1, images)
      elif fading and k == level:
        x = blend(from_rgb(k - 1, images), x, alpha)
    end = again(_Last)(
      width(0), width(-1), self.group, self.dtype, self.axis_name, name=_name(0)
    )
    return end(x).astype(jnp.float32)


def blend(old: Array, new: Array, alpha: ArrayLike) -> Array:
  """(1 - alpha) old + alpha new."""
  # In float32: bfloat16 has 0.996 and 1, and nothing between.
  below, here = old.astype(jnp.float32), new.astype(jnp.float32)
  return (below + alpha * (here - below)).astype(new.dtype)
