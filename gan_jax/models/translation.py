"""Networks of CycleGAN, pix2pix and CUT: ResNet, U-Net, PatchGAN, heads.

Zhu et al. 2017, section 7.1; Isola et al. 2017, section 6.1; Park et al. 2020,
section 3; with the details of the authors' PyTorch code. The networks of images
are fully convolutional.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from gan_jax.errors import UserError
from gan_jax.models.layers import (
  NORMS,
  Conv,
  ConvTranspose,
  Dropout,
  instance_norm,
  reflect_pad,
  weight_init,
)
from gan_jax.registry import choose

Images = Float[Array, 'n h w c']
MAX_WIDTH = 8  # times `features`
# The features of a generator's encoder, in order, for losses that compare them:
# an entry of the collection 'intermediates'.
ENCODER = 'encoder'


def _norm(name: str, train: bool, dtype: Any, axis_name: str | None):
  """Returns a function that makes the normalization of a layer."""
  return partial(choose('norm', name, NORMS), train, dtype, axis_name)


class ResNet(nn.Module):
  """Maps images to images of the same size, which a multiple of 4 divides.

  A 7x7 convolution, two that halve the size, residual blocks, two transposed
  convolutions, a 7x7 convolution, tanh; instance norm and ReLU in between
  (Johnson et al. 2016).

  The encoder's features of CUT are sown into 'intermediates': the padded
  images, the convolutions that halve the size, the first and the fifth block.

  Attributes:
    channels: Those of the output.
    features: Channels of the first layer.
    num_blocks: Number of residual blocks: 6 for 128x128, 9 for 256x256.
    dtype: Computation dtype; the parameters are float32.
  """

  channels: int
  features: int = 64
  num_blocks: int = 9
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, images: Images, keys: Key[Array, ' n'], train: bool
  ) -> Float[Array, 'n h w d']:
    _check_divides('the ResNet', images, 4)
    conv = partial(Conv, stride=1, padding=0, dtype=self.dtype, use_bias=True)
    resample = {
      'kernel': 3,
      'stride': 2,
      'padding': 1,
      'dtype': self.dtype,
      'use_bias': True,
    }
    normed = lambda x: nn.relu(instance_norm(x))
    encoded = partial(self.sow, 'intermediates', ENCODER)
    x = reflect_pad(images, 3)
    encoded(x)
    x = normed(conv(self.features, kernel=7)(x))
    for factor in (2, 4):
      x = Conv(factor * self.features, **resample)(x)
      encoded(x)
      x = normed(x)
    for block in range(self.num_blocks):
      y = normed(conv(x.shape[-1], kernel=3)(reflect_pad(x, 1)))
      x += instance_norm(conv(x.shape[-1], kernel=3)(reflect_pad(y, 1)))
      if block in (0, 4):
        encoded(x)
    for factor in (2, 1):
      x = normed(ConvTranspose(factor * self.features, **resample)(x))
    x = conv(self.channels, kernel=7)(reflect_pad(x, 3))
    return jnp.tanh(x.astype(jnp.promote_types(x.dtype, jnp.float32)))


class UNet(nn.Module):
  """Maps images to images of the same size, with skip connections.

  Every level halves the size by a strided 4x4 convolution, and doubles it again
  by a transposed one, whose input has the features of the same size from the
  way down too. The noise is dropout, in training and in evaluation mode (Isola
  et al. 2017, section 3.2.1), drawn from the keys of the examples.

  Attributes:
    channels: Those of the output.
    features: Channels of the first level; each level has twice as many, up to
      8 times.
    num_downsamples: Number of levels. 8 is the network for 256x256, whose last
      level has one pixel.
    norm: A key of NORMS.
    dropout: Fraction of the units dropped on the way up, in the levels of full
      width except the deepest.
    dtype: Computation dtype; parameters and statistics are float32.
    axis_name: The device axis under pmap.
  """

  channels: int
  features: int = 64
  num_downsamples: int = 8
  norm: str = 'batch'
  dropout: float = 0.5
  dtype: Any = jnp.float32
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self, images: Images, keys: Key[Array, ' n'], train: bool
  ) -> Float[Array, 'n h w d']:
    levels = self.num_downsamples
    _check_divides(f'a U-Net of {levels} levels', images, 2**levels)
    norm = _norm(self.norm, train, self.dtype, self.axis_name)
    resample = {
      'kernel': 4,
      'stride': 2,
      'padding': 1,
      'dtype': self.dtype,
      'use_bias': self.norm == 'instance',
    }
    width = lambda level: self.features * min(2**level, MAX_WIDTH)
    x, skips = images, []
    for level in range(levels):
      if level:
        x = nn.leaky_relu(x, 0.2)
      x = Conv(width(level), **resample)(x)
      if 0 < level < levels - 1:
        x = norm()(x)
      skips.append(x)
    skips.pop()
    for level in reversed(range(1, levels)):
      x = norm()(ConvTranspose(width(level - 1), **resample)(nn.relu(x)))
      # Shallow networks have noise too, in their second deepest level.
      if min(4, levels - 2) <= level < levels - 1:
        x = Dropout(self.dropout)(x, keys, train=True)
      x = jnp.concatenate([skips.pop(), x], axis=-1)
    last = ConvTranspose(self.channels, **{**resample, 'use_bias': True})
    x = last(nn.relu(x))
    return jnp.tanh(x.astype(jnp.promote_types(x.dtype, jnp.float32)))


class PatchGAN(nn.Module):
  """Maps images to one logit per patch, by 4x4 convolutions.

  With 3 strided convolutions, a patch has 70x70 pixels.

  Attributes:
    features: Channels of the first layer; each layer has twice as many, up to 8
      times.
    num_downsamples: Number of strided convolutions.
    norm: A key of NORMS.
    dtype: Computation dtype; parameters and statistics are float32.
    axis_name: The device axis under pmap.
  """

  features: int = 64
  num_downsamples: int = 3
  norm: str = 'instance'
  dtype: Any = jnp.float32
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self, images: Images, keys: Key[Array, ' n'], train: bool
  ) -> Float[Array, 'n rows columns']:
    smallest = 3 * 2**self.num_downsamples  # the last two layers shrink by 1
    if min(images.shape[1:3]) < smallest:
      raise UserError(
        f'a PatchGAN with num_downsamples={self.num_downsamples} needs images '
        f'of at least {smallest}x{smallest} pixels, not '
        f'{images.shape[1]}x{images.shape[2]}: reduce '
        'config.model.disc.num_downsamples'
      )
    norm = _norm(self.norm, train, self.dtype, self.axis_name)
    conv = partial(Conv, kernel=4, padding=1)
    x = images
    for level in range(self.num_downsamples + 1):
      x = conv(
        self.features * min(2**level, MAX_WIDTH),
        stride=2 if level < self.num_downsamples else 1,
        dtype=self.dtype,
        use_bias=level == 0 or self.norm == 'instance',
      )(x)
      x = nn.leaky_relu(norm()(x) if level else x, 0.2)
    exact = jnp.promote_types(self.dtype, jnp.float32)
    return conv(1, stride=1, dtype=exact, use_bias=True)(x)[..., 0]


class PatchHeads(nn.Module):
  """Maps the features of patches to unit vectors: an MLP for each layer.

  Two dense layers with a ReLU in between (Park et al. 2020, section 3).

  Attributes:
    units: Units of both layers.
  """

  units: int = 256

  @nn.compact
  def __call__(
    self, layers: Sequence[Float[Array, 'n _ _']]
  ) -> list[Float[Array, 'n _ d']]:
    embedded = []
    for x in layers:
      x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
      x = nn.relu(nn.Dense(self.units, kernel_init=weight_init)(x))
      x = nn.Dense(self.units, kernel_init=weight_init)(x)
      # The features of a constant image are 0 after instance norm.
      squares = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
      embedded.append(x * jax.lax.rsqrt(squares + 1e-12))
    return embedded


def _check_divides(network: str, images: Images, factor: int) -> None:
  """Raises UserError for images whose sides `factor` does not divide."""
  height, width = images.shape[1:3]
  if height % factor or width % factor:
    raise UserError(
      f'{network} needs images whose sides are multiples of {factor} pixels, '
      f'not {height}x{width}: change config.data.resolution, or the depth'
    )
