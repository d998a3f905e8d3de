"""The networks of R3GAN, optionally class-conditional.

Huang et al. 2024, "The GAN is dead; long live the GAN!", configuration E, as in
the authors' code (github.com/brownvc/R3GAN), which differs from the paper
in the following.

Resampling: the filter is that of StyleGAN2, (1, 3, 3, 1), which is (1, 2, 1)
convolved with (1, 1). Zeros lie beyond the border.

Biases: only the two activations of a block have them. The 1x1 convolutions
between resolutions, from and to images, and the dense layers have none.

Classes: G appends an embedding of the size of z to z. D projects its features
to as many dimensions as it has channels at 4x4, and takes their product with an
embedding of the class.

Output: that of G is linear, without tanh.

Initialization: all weights are N(0, gain^2 / fan_in). In a block, the last
convolution is 0, and the gain of the others is that of the leaky ReLU, divided
by L^(1/4) for a network of L blocks (fix-up: Zhang et al. 2019, for branches of
three layers).

In bfloat16, the top 4 resolutions, or all but 4x4, are computed in it; the rest
in float32.
"""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from gan_jax import ops
from gan_jax.errors import UserError
from gan_jax.models.layers import add_bias
from gan_jax.ops.fir import downsample, upsample

Images = Float[Array, 'n h w c']
Labels = Float[Array, 'n classes']

SLOPE = 0.2
GAIN = math.sqrt(2 / (1 + SLOPE**2))
LOW_PRECISION = 4  # resolutions, from the top, that are computed in `dtype`


def _normal(gain: float, fan_in: int) -> nn.initializers.Initializer:
  return nn.initializers.normal(gain / math.sqrt(fan_in))


class _Conv(nn.Module):
  """A convolution without bias that keeps the size.

  Attributes:
    features: Output channels.
    dtype: Computation dtype; the kernel is float32.
    kernel: Kernel size; odd.
    groups: Groups of channels.
    gain: The gain of the initialization.
  """

  features: int
  dtype: Any
  kernel: int = 1
  groups: int = 1
  gain: float = 1.0

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w c']) -> Float[Array, 'n h w d']:
    if x.shape[-1] % self.groups or self.features % self.groups:
      raise UserError(
        f'groups={self.groups} does not divide the channels, '
        f'{x.shape[-1]}: change groups, features or expansion of config.model'
      )
    channels = x.shape[-1] // self.groups
    shape = self.kernel, self.kernel, channels, self.features
    init = _normal(self.gain, self.kernel**2 * channels)
    w = self.param('kernel', init, shape).astype(self.dtype)
    x = x.astype(self.dtype)
    if self.kernel == 1 and self.groups == 1:
      return x @ w[0, 0]
    return ops.conv(x, w, padding=self.kernel // 2, groups=self.groups)


class _Activation(nn.Module):
  """Adds a bias and applies a leaky ReLU."""

  dtype: Any

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w c']) -> Float[Array, 'n h w c']:
    bias = self.param('bias', nn.initializers.zeros, (x.shape[-1],))
    return nn.leaky_relu(add_bias(x, bias, self.dtype), SLOPE)


class _Block(nn.Module):
  """A residual block: 1x1 (wider), grouped 3x3, 1x1.

  Attributes:
    groups: Groups of channels of the 3x3 convolution.
    expansion: Width of the 3x3 convolution / width of the block.
    depth: Number of blocks of the network.
    dtype: Computation dtype.
  """

  groups: int
  expansion: int
  depth: int
  dtype: Any

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w c']) -> Float[Array, 'n h w c']:
    wide, dtype = self.expansion * x.shape[-1], self.dtype
    gain = GAIN * self.depth ** (-1 / 4)
    y = _Conv(wide, dtype, gain=gain, name='expand')(x)
    y = _Activation(dtype, name='activation_1')(y)
    y = _Conv(wide, dtype, 3, self.groups, gain, name='spatial')(y)
    y = _Activation(dtype, name='activation_2')(y)
    return x + _Conv(x.shape[-1], dtype, gain=0.0, name='project')(y)


class _Stages(nn.Module):
  """What G and D share: their widths, by resolution from 4x4 up.

  Attributes:
    resolution, channels: Those of the images.
    features: Channels at each resolution.
    groups: Groups of the 3x3 convolutions at each resolution.
    num_blocks: Residual blocks at each resolution.
    expansion: Width of the 3x3 convolutions / `features`.
    dtype: Computation dtype of the top resolutions; parameters are float32.
  """

  resolution: int
  channels: int
  features: Sequence[int] = (768, 768, 768, 768)
  groups: Sequence[int] = (96, 96, 96, 96)
  num_blocks: int = 2
  expansion: int = 2
  dtype: Any = jnp.float32

  def sizes(self, player: str) -> list[int]:
    """Returns the resolutions: 4, 8, ...

    Raises:
      UserError: The widths do not fit the resolution.
    """
    where = f'config.model.{player}'
    if len(self.features) != len(self.groups):
      raise UserError(
        f'{where}.groups has {len(self.groups)} items, but {where}.features '
        f'has {len(self.features)}: set one number of groups per resolution'
      )
    last = 4 * 2 ** (len(self.features) - 1)
    if last != self.resolution:
      raise UserError(
        f'{where}.features has {len(self.features)} resolutions, 4 to {last}, '
        f'but the images have {self.resolution}: set one width per '
        'resolution, or change config.data.resolution'
      )
    return [4 * 2**level for level in range(len(self.features))]

  def dtype_at(self, size: int) -> Any:
    """Returns the computation dtype at a resolution."""
    is_top = size > 4 and size * 2**LOW_PRECISION > self.resolution
    exact = jnp.promote_types(self.dtype, jnp.float32)
    return self.dtype if is_top else exact

  def blocks(self, x: Images, level: int, size: int) -> Images:
    """Applies the residual blocks of a resolution."""
    depth = self.num_blocks * len(self.features)
    dtype = self.dtype_at(size)
    for index in range(self.num_blocks):
      name = f'block_{size}_{index}'
      x = _Block(self.groups[level], self.expansion, depth, dtype, name=name)(x)
    return x


class Generator(_Stages):
  """Maps z to images: a basis at 4x4, scaled by z, then blocks and upsampling.

  Attributes: See `_Stages`.
  """

  @nn.compact
  def __call__(
    self,
    z: Float[Array, 'n d'],
    keys: Key[Array, ' n'],
    train: bool,
    labels: Labels | None = None,
  ) -> Images:
    """Generates images; labels are embedded and appended to z."""
    sizes = self.sizes('gen')
    if labels is not None:
      init = _normal(1.0, labels.shape[-1])
      embed = self.param('embed', init, (labels.shape[-1], z.shape[-1]))
      z = jnp.concatenate([z, labels @ embed], axis=-1)
    first = self.features[0]
    basis = self.param('basis', nn.initializers.normal(1.0), (4, 4, first))
    shape = z.shape[-1], first
    scale = z @ self.param('scale', _normal(1.0, shape[0]), shape)
    x = basis[None] * scale[:, None, None]
    for level, (size, width) in enumerate(
      zip(sizes, self.features, strict=True)
    ):
      dtype = self.dtype_at(size)
      x = x.astype(dtype)
      if width != x.shape[-1]:
        x = _Conv(width, dtype, name=f'transition_{size}')(x)
      x = x if level == 0 else upsample(x)
      x = self.blocks(x, level, size)
    x = _Conv(self.channels, x.dtype, name='to_image')(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class Discriminator(_Stages):
  """Maps images to logits: blocks and downsampling, then a basis at 4x4.

  Attributes: See `_Stages`.
  """

  @nn.compact
  def __call__(
    self,
    images: Images,
    keys: Key[Array, ' n'],
    train: bool,
    labels: Labels | None = None,
  ) -> Float[Array, ' n']:
    """Returns the logits; labels project the features."""
    sizes, last = self.sizes('disc'), len(self.features) - 1
    dtype = self.dtype_at(self.resolution)
    x = _Conv(self.features[last], dtype, name='from_image')(images)
    for level in range(last, -1, -1):
      size = sizes[level]
      dtype = self.dtype_at(size)
      x = self.blocks(x.astype(dtype), level, size)
      if level == 0:
        break
      x, width = downsample(x), self.features[level - 1]
      if width != x.shape[-1]:
        x = _Conv(width, dtype, name=f'transition_{size // 2}')(x)
    width = self.features[0]
    basis = self.param('basis', _normal(1.0, 4 * 4), (4, 4, width))
    x = jnp.sum(x * basis[None], axis=(1, 2))
    outputs = 1 if labels is None else width
    w = self.param('project', _normal(1.0, width), (width, outputs))
    x = x @ w
    if labels is None:
      return x[:, 0]
    classes = labels.shape[-1]
    init = _normal(1 / math.sqrt(width), classes)
    embed = self.param('embed', init, (classes, width))
    return jnp.sum(x * (labels @ embed), axis=-1)
