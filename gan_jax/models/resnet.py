"""Residual networks: those of WGAN-GP and of SNGAN, also of classes.

Gulrajani et al. 2017, appendix F; Miyato et al. 2018, appendix B.4; Miyato &
Koyama 2018 (classes in G's BatchNorm, and by projection in D); Odena et al.
2017 (AC-GAN: D says the class).
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

# Before a ReLU, and elsewhere.
he_init = nn.initializers.variance_scaling(2.0, 'fan_avg', 'uniform')
glorot_init = nn.initializers.glorot_uniform()

# How D makes one number of a feature's pixels.
POOLS: dict[str, Callable] = {'mean': jnp.mean, 'sum': jnp.sum}


class _Up(nn.Module):
  """A block of G: norm, ReLU, twice the size, conv, norm, ReLU, conv."""

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
    # Made larger afterwards: of a 1x1 convolution it is the same.
    beside = Conv(
      self.width, kernel=1, kernel_init=glorot_init, dtype=self.dtype
    )
    return y + upsample_nearest(beside(x), 2)


class _Down(nn.Module):
  """A block of D: ReLU, conv, ReLU, conv, half the size if `halve`.

  The first one sees images, and has no ReLU before them.
  """

  width: int
  halve: bool
  first: bool
  spectral: bool
  dtype: Any

  @nn.compact
  def __call__(self, x: Images) -> Float[Array, 'n H W d']:
    layer = partial(Conv, spectral=self.spectral, dtype=self.dtype)
    conv = partial(layer, kernel_init=he_init)
    beside = layer(self.width, kernel=1, kernel_init=glorot_init)
    factor = 2 if self.halve else 1
    y = x if self.first else nn.relu(x)
    y = conv(self.width if self.first else x.shape[-1])(y)
    y = average_pool(conv(self.width)(nn.relu(y)), factor)
    if self.halve or x.shape[-1] != self.width:
      x = beside(average_pool(x, factor))
    return y + x


class Generator(nn.Module):
  """z -> images: a dense layer, blocks that double, BatchNorm, conv, tanh.

  Attributes:
    resolution, channels: Of the images.
    features: Channels of the first pixels, and of each block.
    dtype: What it computes in; parameters and BatchNorm statistics are
      float32.
    axis_name: The devices' axis under pmap.
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
    """Of classes, where there are labels: each with its own BatchNorm gains."""
    first, *widths = self.features
    size = self.resolution // 2 ** len(widths)
    if size * 2 ** len(widths) != self.resolution:
      raise UserError(
        f'config.model.gen.features has {len(widths)} blocks, which double the '
        f'size: {self.resolution} pixels are not so many times divisible by 2'
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
  """Images -> logits: blocks, ReLU, a pool, a dense layer.

  Attributes:
    features: Channels of each block.
    num_downsamples: The first blocks of this number halve the size.
    pool: How one number is made of a feature's pixels: see POOLS.
    spectral: Whether its layers are spectrally normalised.
    auxiliary: Whether a second head classifies the images (AC-GAN). If not,
      given labels enter by projection (Miyato & Koyama 2018, equation 3).
    dtype: As of the generator.
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
    """Logits [n]; with `auxiliary`, also those of the classes [n, classes]."""
    x = images
    for index, width in enumerate(self.features):
      halve, first = index < self.num_downsamples, index == 0
      x = _Down(width, halve, first, self.spectral, self.dtype)(x)
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
