"""DCGAN (Radford et al. 2016), as in its reference implementations.

Strided 4x4 convolutions without pooling; dense layers only from z to 4x4 and
from 4x4 to the logit; BatchNorm except at G's output and D's input; no biases.
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
  """Returns the number of upsampling layers from 4x4 to `resolution`.

  Raises:
    UserError: The resolution is not supported.
  """
  num_upsamples = round(math.log2(resolution / 4)) if resolution >= 8 else 0
  if 4 * 2**num_upsamples != resolution or not 8 <= resolution <= 128:
    raise UserError(
      f'DCGAN makes images of 8, 16, 32, 64 or 128 pixels, not {resolution}: '
      'set config.data.resolution'
    )
  return num_upsamples


class Generator(nn.Module):
  """Maps z to images: 4x4, upsampled by transposed convolutions, then tanh.

  Attributes:
    resolution, channels: Those of the images.
    features: Channels before the last layer; each earlier layer has twice as
      many.
    activation, negative_slope: See `layers.activation`.
    dtype: Computation dtype; parameters and BatchNorm statistics are float32.
    axis_name: The device axis under pmap.
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
    upsample = partial(
      ConvTranspose, kernel=4, stride=2, padding=1, dtype=self.dtype
    )
    num_upsamples = stages(self.resolution)
    width = self.features * 2 ** (num_upsamples - 1)
    # Equals the transposed 4x4 convolution of one pixel in the paper.
    x = nn.Dense(
      4 * 4 * width, use_bias=False, kernel_init=weight_init, dtype=self.dtype
    )(z.astype(self.dtype))
    x = x.reshape(-1, 4, 4, width)
    x = activation(self.activation, self.negative_slope)(norm()(x))
    for level in reversed(range(num_upsamples - 1)):
      x = norm()(upsample(self.features * 2**level)(x))
      x = activation(self.activation, self.negative_slope)(x)
    return jnp.tanh(upsample(self.channels)(x).astype(jnp.float32))


class Discriminator(nn.Module):
  """Maps images to logits: downsampled to 4x4 by strided convolutions.

  Attributes:
    resolution: That of the images.
    features: Channels after the first layer; each later layer has twice as
      many.
    normalized: Whether to use BatchNorm; WGAN-GP has none, as its penalty is
      of single images.
    outputs: Outputs of a second head; see `mlp.Discriminator`.
    Others: See `Generator`.
  """

  resolution: int
  features: int = 64
  normalized: bool = True
  outputs: int = 0
  activation: str = 'leaky_relu'
  negative_slope: float = 0.2
  dtype: Any = jnp.float32
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self, images: Float[Array, 'n h w c'], keys: Key[Array, ' n'], train: bool
  ) -> Any:
    norm = batch_norm(train, self.dtype, self.axis_name)
    downsample = partial(Conv, kernel=4, stride=2, padding=1, dtype=self.dtype)
    x = images
    for level in range(stages(self.resolution)):
      x = downsample(self.features * 2**level)(x)
      x = norm()(x) if self.normalized and level > 0 else x
      x = activation(self.activation, self.negative_slope)(x)
    # Equals the 4x4 convolution of 4x4 pixels in the paper.
    x = x.reshape(x.shape[0], -1)
    last = nn.Dense(
      1 + self.outputs,
      use_bias=False,
      kernel_init=weight_init,
      dtype=jnp.float32,
    )
    x = last(x)
    return (x[:, 0], x[:, 1:]) if self.outputs else x[:, 0]
