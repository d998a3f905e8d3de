"""Networks of SRGAN and ESRGAN, with the details of BasicSR.

Ledig et al. 2017, and Wang et al. 2018 (ESRGAN). Both generators have no
normalization, so that one image never depends on another.
"""

import math
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from gan_jax.errors import UserError
from gan_jax.models.layers import Conv
from gan_jax.ops.resample import (
  pixel_shuffle,
  pixel_unshuffle,
  upsample_nearest,
)

Images = Float[Array, 'n h w c']

# Residual branches start at a tenth of He initialization (Wang et al. 2018,
# section 3.1): the variance is a hundredth.
small_init = nn.initializers.variance_scaling(0.02, 'fan_in', 'normal')
# The default of PyTorch: uniform in +-1 / sqrt(fan_in).
uniform_init = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


def _conv3(features: int, dtype: Any, init: Any = small_init) -> Conv:
  """Makes a 3x3 convolution that keeps the size, with a bias."""
  return Conv(features, 3, 1, 1, dtype, use_bias=True, kernel_init=init)


class SRResNet(nn.Module):
  """Maps images to images `scale` times as large (Ledig et al. 2017).

  As BasicSR's MSRResNet: residual blocks without BatchNorm, upsampling by pixel
  shuffle, and the residual is to the bilinear upsampling of the input.

  Attributes:
    channels: Those of the output.
    scale: 2, 3 or 4.
    features: Channels of the hidden layers.
    num_blocks: Number of residual blocks.
    dtype: Computation dtype; the parameters are float32.
  """

  channels: int
  scale: int = 4
  features: int = 64
  num_blocks: int = 16
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, images: Images, keys: Key[Array, ' n'], train: bool
  ) -> Float[Array, 'n H W d']:
    factors = {2: (2,), 3: (3,), 4: (2, 2)}
    if self.scale not in factors:
      raise UserError(f'SRResNet has scale 2, 3 or 4, not {self.scale}')
    conv = partial(_conv3, dtype=self.dtype)
    slope = partial(nn.leaky_relu, negative_slope=0.1)
    x = slope(conv(self.features)(images))
    for _ in range(self.num_blocks):
      y = nn.relu(conv(self.features)(x))
      x += conv(self.features)(y)
    for factor in factors[self.scale]:
      x = conv(self.features * factor**2)(x)
      x = slope(pixel_shuffle(x, factor))
    x = slope(conv(self.features)(x))
    x = conv(self.channels)(x)
    n, height, width, _ = images.shape
    shape = n, self.scale * height, self.scale * width, self.channels
    exact = jnp.promote_types(x.dtype, jnp.float32)
    base = jax.image.resize(images.astype(exact), shape, 'linear')
    return base + x.astype(exact)


class _DenseBlock(nn.Module):
  """Five convolutions, each of all earlier features (Wang et al. 2018)."""

  growth: int
  dtype: Any

  @nn.compact
  def __call__(self, x: Images) -> Images:
    features = x
    for _ in range(4):
      new = _conv3(self.growth, self.dtype)(features)
      new = nn.leaky_relu(new, 0.2)
      features = jnp.concatenate([features, new], axis=-1)
    return x + 0.2 * _conv3(x.shape[-1], self.dtype)(features)


class RRDB(nn.Module):
  """Maps images to images `scale` times as large (Wang et al. 2018).

  Residual-in-residual dense blocks, then two nearest-neighbour upsamplings. For
  scale 2, squares of 2x2 input pixels become channels first, as in BasicSR.

  Attributes:
    channels: Those of the output.
    scale: 2 or 4.
    features: Channels of the hidden layers.
    num_blocks: Number of blocks, each of three dense blocks.
    growth: Channels that a convolution of a dense block adds.
    dtype: Computation dtype; the parameters are float32.
  """

  channels: int
  scale: int = 4
  features: int = 64
  num_blocks: int = 23
  growth: int = 32
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, images: Images, keys: Key[Array, ' n'], train: bool
  ) -> Float[Array, 'n H W d']:
    if self.scale not in (2, 4):
      raise UserError(f'RRDB has scale 2 or 4, not {self.scale}')
    if self.scale == 2 and (images.shape[1] % 2 or images.shape[2] % 2):
      raise UserError(
        'RRDB of scale 2 needs images whose sides are even, not '
        f'{images.shape[1]}x{images.shape[2]}'
      )
    conv = partial(_conv3, self.features, dtype=self.dtype, init=uniform_init)
    slope = partial(nn.leaky_relu, negative_slope=0.2)
    x = pixel_unshuffle(images, 4 // self.scale)
    first = x = conv()(x)
    for _ in range(self.num_blocks):
      y = x
      for _ in range(3):
        y = _DenseBlock(self.growth, self.dtype)(y)
      x += 0.2 * y
    x = first + conv()(x)
    for _ in range(2):
      x = slope(conv()(upsample_nearest(x, 2)))
    x = slope(conv()(x))
    x = _conv3(self.channels, self.dtype, uniform_init)(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class VGG(nn.Module):
  """Maps images to logits: 3x3 and strided 4x4 convolutions down to 4x4.

  Ledig et al. 2017, figure 4, as in BasicSR: BatchNorm and LeakyReLU after each
  convolution (the first has no BatchNorm), and two dense layers.

  Attributes:
    resolution: That of the images: 8, 16, ... 256.
    features: Channels of the first layer; each size has twice as many, up to 8
      times.
    dtype: Computation dtype; parameters and statistics are float32.
    axis_name: The device axis under pmap.
  """

  resolution: int
  features: int = 64
  dtype: Any = jnp.float32
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self, images: Images, keys: Key[Array, ' n'], train: bool
  ) -> Float[Array, ' n']:
    levels = round(math.log2(self.resolution / 4)) if self.resolution > 4 else 0
    if not levels or 4 * 2**levels != self.resolution:
      raise UserError(
        'the VGG discriminator needs images of 8, 16, 32, 64, 128 or 256 '
        f'pixels, not {self.resolution}: set config.data.resolution'
      )
    norm = partial(
      nn.BatchNorm,
      use_running_average=not train,
      momentum=0.9,
      epsilon=1e-5,
      dtype=self.dtype,
      axis_name=self.axis_name,
    )
    conv = partial(Conv, padding=1, dtype=self.dtype, kernel_init=uniform_init)
    x = images
    for level in range(levels):
      width = self.features * min(2**level, 8)
      x = conv(width, kernel=3, stride=1, use_bias=level == 0)(x)
      x = nn.leaky_relu(norm()(x) if level else x, 0.2)
      x = nn.leaky_relu(norm()(conv(width, kernel=4, stride=2)(x)), 0.2)
    exact = jnp.promote_types(self.dtype, jnp.float32)
    dense = partial(nn.Dense, dtype=exact, kernel_init=uniform_init)
    x = nn.leaky_relu(dense(100)(x.reshape(len(x), -1)), 0.2)
    return dense(1)(x)[:, 0]
