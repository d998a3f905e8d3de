"""DCGAN (Radford et al. 2016), in the form of its reference implementations.

Strided 4x4 convolutions, no pooling, no dense layer but the one that makes 4x4
of z; BatchNorm except at G's output and D's input; no biases.
"""

import math
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from gan_jax.errors import UserError
from gan_jax.models.layers import (
  Conv,
  ConvTranspose,
  activation,
  batch_norm,
  weight_init,
)


def stages(resolution: int) -> int:
  """How many doublings lead from 4x4 to `resolution`."""
  doublings = round(math.log2(resolution / 4)) if resolution >= 8 else 0
  if 4 * 2**doublings != resolution or not 8 <= resolution <= 128:
    raise UserError(
      f'DCGAN makes images of 8, 16, 32, 64 or 128 pixels, not {resolution}: '
      'set config.data.resolution'
    )
  return doublings


class Generator(nn.Module):
  """z -> images: 4x4, then doubled by transposed convolutions; tanh.

  Attributes:
    resolution, channels: Of the images.
    features: Channels before the last layer; twice as many a layer before.
    activation, negative_slope: See `layers.activation`.
    dtype: What it computes in; parameters and BatchNorm statistics are
      float32.
    axis_name: The devices' axis under pmap.
  """

  resolution: int
  channels: int
  features: int = 64
  activation: str = 'relu'
  negative_slope: float = 0.2
  dtype: Any = jnp.float32
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self, z: Float[Array, 'n d'], keys: Key[Array, ' n'], train: bool
  ) -> Float[Array, 'n h w c']:
    norm = batch_norm(train, self.dtype, self.axis_name)
    double = partial(
      ConvTranspose, kernel=4, stride=2, padding=1, dtype=self.dtype
    )
    doublings = stages(self.resolution)
    width = self.features * 2 ** (doublings - 1)
    # A transposed 4x4 convolution of one pixel is a dense layer.
    x = nn.Dense(
      4 * 4 * width, use_bias=False, kernel_init=weight_init, dtype=self.dtype
    )(z.astype(self.dtype))
    x = x.reshape(-1, 4, 4, width)
    x = activation(self.activation, self.negative_slope)(norm()(x))
    for doubling in reversed(range(doublings - 1)):
      x = norm()(double(self.features * 2**doubling)(x))
      x = activation(self.activation, self.negative_slope)(x)
    return jnp.tanh(double(self.channels)(x).astype(jnp.float32))


class Discriminator(nn.Module):
  """Images -> logits: halved by strided convolutions down to 4x4.

  Attributes:
    resolution: Of the images.
    features: Channels after the first layer; twice as many a layer after.
    normalized: Whether there is BatchNorm; a gradient penalty asks for none.
    The others: as the generator's.
  """

  resolution: int
  features: int = 64
  normalized: bool = True
  activation: str = 'leaky_relu'
  negative_slope: float = 0.2
  dtype: Any = jnp.float32
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self, images: Float[Array, 'n h w c'], keys: Key[Array, ' n'], train: bool
  ) -> Float[Array, ' n']:
    norm = batch_norm(train, self.dtype, self.axis_name)
    halve = partial(Conv, kernel=4, stride=2, padding=1, dtype=self.dtype)
    x = images
    for halving in range(stages(self.resolution)):
      x = halve(self.features * 2**halving)(x)
      x = norm()(x) if self.normalized and halving > 0 else x
      x = activation(self.activation, self.negative_slope)(x)
    # A 4x4 convolution of 4x4 pixels is a dense layer.
    x = x.reshape(x.shape[0], -1)
    last = nn.Dense(
      1, use_bias=False, kernel_init=weight_init, dtype=jnp.float32
    )
    return last(x)[:, 0]
