"""The residual networks of WGAN-GP, SNGAN, SAGAN and BigGAN's discriminator.

Gulrajani et al. 2017, appendix F; Miyato et al. 2018, appendix B.4; Miyato &
Koyama 2018 (conditional BatchNorm in G, projection in D); Odena et al. 2017
(AC-GAN: an auxiliary classifier in D); Zhang et al. 2019 (SAGAN:
self-attention, spectral normalization in both); Brock et al. 2019 (BigGAN).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from gan_jax.errors import UserError
from gan_jax.models.attention import SelfAttention, check_attention
from gan_jax.models.layers import ConditionalBatchNorm
from gan_jax.models.spectral import Conv, Dense, Embed
from gan_jax.ops.resample import average_pool, upsample_nearest
from gan_jax.registry import choose

Images = Float[Array, 'n h w c']
Labels = Float[Array, 'n classes']

glorot_init = nn.initializers.glorot_uniform()


class Inits(NamedTuple):
  """The initializers of a network's kernels.

  Attributes:
    branch: That of the 3x3 convolutions of the residual branches.
    other: That of all other layers.
  """

  branch: Callable
  other: Callable


# `he`: SNGAN's; `glorot`: SAGAN's; `orthogonal`: BigGAN's.
INITS: dict[str, Inits] = {
  'glorot': Inits(glorot_init, glorot_init),
  'he': Inits(
    nn.initializers.variance_scaling(2.0, 'fan_avg', 'uniform'), glorot_init
  ),
  'orthogonal': Inits(*2 * [nn.initializers.orthogonal()]),
}

# Global pooling of D's last features.
POOLS: dict[str, Callable] = {'mean': jnp.mean, 'sum': jnp.sum}


# Flax names the parameters after these classes: renaming one changes the
# checkpoints.
class _Up(nn.Module):
  """A block of G: norm, ReLU, upsample, conv, norm, ReLU, conv."""

  width: int
  norm: Callable
  spectral: bool
  inits: Inits
  dtype: Any

  @nn.compact
  def __call__(
    self, x: Images, condition: Float[Array, 'n k'] | None
  ) -> Float[Array, 'n H W d']:
    layer = partial(Conv, self.width, self.spectral, dtype=self.dtype)
    conv = partial(layer, kernel_init=self.inits.branch)
    y = nn.relu(self.norm()(x, condition))
    y = conv()(upsample_nearest(y, 2))
    y = conv()(nn.relu(self.norm()(y, condition)))
    # Upsampling after a 1x1 convolution is equivalent, and faster.
    shortcut = layer(kernel=1, kernel_init=self.inits.other)
    return y + upsample_nearest(shortcut(x), 2)


class _Down(nn.Module):
  """A block of D: ReLU, conv, ReLU, conv, average pooling if `downsample`.

  The first block has images as input and omits its first ReLU. If `wide`, the
  channels change in the first convolution instead of the second.
  """

  width: int
  downsample: bool
  first: bool
  wide: bool
  spectral: bool
  inits: Inits
  dtype: Any

  @nn.compact
  def __call__(self, x: Images) -> Float[Array, 'n H W d']:
    layer = partial(Conv, spectral=self.spectral, dtype=self.dtype)
    conv = partial(layer, kernel_init=self.inits.branch)
    shortcut = layer(self.width, kernel=1, kernel_init=self.inits.other)
    wide = self.wide or self.first
    factor = 2 if self.downsample else 1
    y = x if self.first else nn.relu(x)
    y = conv(self.width if wide else x.shape[-1])(y)
    y = average_pool(conv(self.width)(nn.relu(y)), factor)
    if self.downsample or x.shape[-1] != self.width:
      x = shortcut(average_pool(x, factor))
    return y + x


class Generator(nn.Module):
  """Maps z to images: dense, upsampling blocks, BatchNorm, ReLU, conv, tanh.

  Attributes:
    resolution, channels: Those of the images.
    features: Channels of the dense layer's pixels, then of each block.
    spectral: Whether to use spectral normalization.
    attention: Resolutions of the blocks that self-attention follows.
    initializer: Initializers of the kernels; a key of INITS.
    dtype: Computation dtype; parameters and BatchNorm statistics are float32.
    axis_name: The device axis under pmap.
  """

  resolution: int
  channels: int
  features: tuple[int, ...] = (256, 256, 256, 256)
  spectral: bool = False
  attention: tuple[int, ...] = ()
  initializer: str = 'he'
  dtype: Any = jnp.float32
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self,
    z: Float[Array, 'n d'],
    keys: Key[Array, ' n'],
    train: bool,
    labels: Labels | None = None,
  ) -> Images:
    """Generates images; labels select the BatchNorm gains and biases."""
    first, *widths = self.features
    size = self.resolution // 2 ** len(widths)
    if size * 2 ** len(widths) != self.resolution:
      raise UserError(
        f'config.model.gen.features has {len(widths)} upsampling blocks, but '
        f'the resolution {self.resolution} is not divisible by '
        f'{2 ** len(widths)}: remove blocks, or change config.data.resolution'
      )
    inits = choose('config.model.gen.initializer', self.initializer, INITS)
    check_attention(
      'config.model.gen.attention',
      self.attention,
      [size * 2**i for i in range(1, len(self.features))],
    )
    how = {'spectral': self.spectral, 'dtype': self.dtype}
    z, conditions = self.conditions(z, labels, inits)
    norm = self.norm(train, inits)
    x = Dense(size * size * first, kernel_init=inits.other, **how)(z)
    x = x.reshape(-1, size, size, first)
    for width, condition in zip(widths, conditions, strict=True):
      x = _Up(width, norm, inits=inits, **how)(x, condition)
      if x.shape[1] in self.attention:
        x = SelfAttention(kernel_init=inits.other, **how)(x)
    x = ConditionalBatchNorm(train, self.dtype, self.axis_name)(x, None)
    x = Conv(self.channels, kernel_init=inits.other, **how)(nn.relu(x))
    return jnp.tanh(x.astype(jnp.promote_types(x.dtype, jnp.float32)))

  def conditions(
    self, z: Float[Array, 'n d'], labels: Labels | None, inits: Inits
  ) -> tuple[Float[Array, 'n e'], list[Float[Array, 'n k'] | None]]:
    """Returns the dense layer's input and the condition of each block."""
    del inits
    return z, [labels] * (len(self.features) - 1)

  def norm(self, train: bool, inits: Inits) -> Callable[[], nn.Module]:
    """Returns a function that makes a norm (x, condition) -> x."""
    del inits
    return partial(ConditionalBatchNorm, train, self.dtype, self.axis_name)


class Discriminator(nn.Module):
  """Maps images to logits: blocks, ReLU, global pooling, a dense layer.

  Attributes:
    features: Channels of each block.
    num_downsamples: Number of blocks, from the first, that downsample.
    pool: Global pooling; a key of POOLS.
    spectral: Whether to use spectral normalization.
    wide: Whether the channels change in the first convolution of a block
      (SAGAN, BigGAN) instead of the second.
    attention: Resolutions of the outputs of blocks; self-attention follows the
      first block of each.
    initializer: Initializers of the kernels; a key of INITS.
    auxiliary: Whether D has an auxiliary classifier (AC-GAN). If not, labels
      are used by projection (Miyato & Koyama 2018, equation 3).
    dtype: See `Generator`.
  """

  features: tuple[int, ...] = (128, 128, 128, 128)
  num_downsamples: int = 2
  pool: str = 'sum'
  spectral: bool = True
  wide: bool = False
  attention: tuple[int, ...] = ()
  initializer: str = 'he'
  auxiliary: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    images: Images,
    keys: Key[Array, ' n'],
    train: bool,
    labels: Labels | None = None,
  ) -> Any:
    """Returns logits [n]; with `auxiliary` and labels, ([n], [n, classes])."""
    inits = choose('config.model.disc.initializer', self.initializer, INITS)
    how = {'spectral': self.spectral, 'dtype': self.dtype}
    sizes = [
      images.shape[1] // 2 ** min(index + 1, self.num_downsamples)
      for index in range(len(self.features))
    ]
    check_attention('config.model.disc.attention', self.attention, sizes)
    x, pending = images, {*self.attention}
    for index, width in enumerate(self.features):
      downsample, first = index < self.num_downsamples, index == 0
      x = _Down(width, downsample, first, self.wide, inits=inits, **how)(x)
      if x.shape[1] in pending:
        pending.remove(x.shape[1])
        x = SelfAttention(kernel_init=inits.other, **how)(x)
    pool = choose('config.model.disc.pool', self.pool, POOLS)
    exact = jnp.promote_types(x.dtype, jnp.float32)
    x = pool(nn.relu(x).astype(exact), axis=(1, 2))
    dense = partial(
      Dense, spectral=self.spectral, kernel_init=inits.other, dtype=exact
    )
    logits = dense(1)(x)[:, 0]
    if labels is None:
      return logits
    if self.auxiliary:
      return logits, dense(labels.shape[-1])(x)
    embed = Embed(
      x.shape[-1], spectral=self.spectral, kernel_init=inits.other, dtype=exact
    )
    return logits + jnp.sum(embed(labels) * x, axis=-1)
