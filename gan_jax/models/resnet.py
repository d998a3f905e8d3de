"""The residual networks of WGAN-GP and SNGAN, optionally class-conditional.

Gulrajani et al. 2017, appendix F; Miyato et al. 2018, appendix B.4; Miyato &
Koyama 2018 (conditional BatchNorm in G, projection in D); Odena et al. 2017
(AC-GAN: an auxiliary classifier in D).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from gan_jax.errors import UserError
from gan_jax.models.layers import ConditionalBatchNorm
from gan_jax.models.spectral import Conv, Dense, Embed
from gan_jax.ops.resample import average_pool, upsample_nearest
from gan_jax.registry import choose

Images = Float[Array, 'n h w c']
Labels = Float[Array, 'n classes']

# `he_init` for the residual branches, `glorot_init` for the other layers.
he_init = nn.initializers.variance_scaling(2.0, 'fan_avg', 'uniform')
glorot_init = nn.initializers.glorot_uniform()

# Global pooling of D's last features.
POOLS: dict[str, Callable] = {'mean': jnp.mean, 'sum': jnp.sum}


# Flax names the parameters after these classes: renaming one changes the
# checkpoints.
class _Up(nn.Module):
  """A block of G: norm, ReLU, upsample, conv, norm, ReLU, conv."""

  width: int
  norm: Callable
  dtype: Any

  @nn.compact
  def __call__(
    self, x: Images, labels: Labels | None
  ) -> Float[Array, 'n H W d']:
    conv = partial(Conv, self.width, kernel_init=he_init, dtype=self.dtype)
    y = nn.relu(self.norm()(x, labels))
    y = conv()(upsample_nearest(y, 2))
    y = conv()(nn.relu(self.norm()(y, labels)))
    # Upsampling after a 1x1 convolution is equivalent, and faster.
    shortcut = Conv(
      self.width, kernel=1, kernel_init=glorot_init, dtype=self.dtype
    )
    return y + upsample_nearest(shortcut(x), 2)


class _Down(nn.Module):
  """A block of D: ReLU, conv, ReLU, conv, average pooling if `downsample`.

  The first block has images as input and omits its first ReLU.
  """

  width: int
  downsample: bool
  first: bool
  spectral: bool
  dtype: Any

  @nn.compact
  def __call__(self, x: Images) -> Float[Array, 'n H W d']:
    layer = partial(Conv, spectral=self.spectral, dtype=self.dtype)
    conv = partial(layer, kernel_init=he_init)
    shortcut = layer(self.width, kernel=1, kernel_init=glorot_init)
    factor = 2 if self.downsample else 1
    y = x if self.first else nn.relu(x)
    y = conv(self.width if self.first else x.shape[-1])(y)
    y = average_pool(conv(self.width)(nn.relu(y)), factor)
    if self.downsample or x.shape[-1] != self.width:
      x = shortcut(average_pool(x, factor))
    return y + x


class Generator(nn.Module):
  """Maps z to images: dense, upsampling blocks, BatchNorm, ReLU, conv, tanh.

  Attributes:
    resolution, channels: Those of the images.
    features: Channels of the dense layer's pixels, then of each block.
    dtype: Computation dtype; parameters and BatchNorm statistics are float32.
    axis_name: The device axis under pmap.
  """

  resolution: int
  channels: int
  features: tuple[int, ...] = (256, 256, 256, 256)
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
    norm = partial(ConditionalBatchNorm, train, self.dtype, self.axis_name)
    x = Dense(size * size * first, dtype=self.dtype)(z)
    x = x.reshape(-1, size, size, first)
    for width in widths:
      x = _Up(width, norm, self.dtype)(x, labels)
    x = nn.relu(norm()(x, None))
    x = Conv(self.channels, kernel_init=glorot_init, dtype=self.dtype)(x)
    return jnp.tanh(x.astype(jnp.float32))


class Discriminator(nn.Module):
  """Maps images to logits: blocks, ReLU, global pooling, a dense layer.

  Attributes:
    features: Channels of each block.
    num_downsamples: Number of blocks, from the first, that downsample.
    pool: Global pooling; a key of POOLS.
    spectral: Whether to use spectral normalization.
    auxiliary: Whether D has an auxiliary classifier (AC-GAN). If not, labels
      are used by projection (Miyato & Koyama 2018, equation 3).
    dtype: See `Generator`.
  """

  features: tuple[int, ...] = (128, 128, 128, 128)
  num_downsamples: int = 2
  pool: str = 'sum'
  spectral: bool = True
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
    x = images
    for index, width in enumerate(self.features):
      downsample, first = index < self.num_downsamples, index == 0
      x = _Down(width, downsample, first, self.spectral, self.dtype)(x)
    pool = choose('config.model.disc.pool', self.pool, POOLS)
    x = pool(nn.relu(x).astype(jnp.float32), axis=(1, 2))
    dense = partial(Dense, spectral=self.spectral, kernel_init=glorot_init)
    logits = dense(1)(x)[:, 0]
    if labels is None:
      return logits
    if self.auxiliary:
      return logits, dense(labels.shape[-1])(x)
    embed = Embed(x.shape[-1], spectral=self.spectral, kernel_init=glorot_init)
    return logits + jnp.sum(embed(labels) * x, axis=-1)
