"""The networks of InfoGAN for digits (Chen et al. 2016, appendix C.1).

Two strided 4x4 convolutions or their transposes, and dense layers between them
and the latents or logits; BatchNorm except at D's input and G's output. Unlike
DCGAN, they make 28x28 images without resizing.
"""

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

HEAD_WIDTH = 128  # the hidden layer of the second head


def quarter(resolution: int) -> int:
  """Returns a quarter of `resolution`, the size inside the networks.

  Raises:
    UserError: The resolution is not a multiple of 4.
  """
  if resolution % 4:
    raise UserError(
      f'the networks infogan halve images twice, but {resolution} is no '
      'multiple of 4: set config.data.resolution'
    )
  return resolution // 4


def _dense(width: int, dtype: Any) -> nn.Dense:
  return nn.Dense(width, use_bias=False, kernel_init=weight_init, dtype=dtype)


class Generator(nn.Module):
  """Maps z to images: two dense layers, two transposed convolutions, tanh.

  Attributes:
    resolution, channels: Those of the images.
    features: Channels before the last layer; the layer before has twice as
      many.
    hidden: Widths of the dense layers before the first pixels.
    activation, negative_slope: See `layers.activation`.
    dtype: Computation dtype; parameters and BatchNorm statistics are float32.
    axis_name: The device axis under pmap.
  """

  resolution: int
  channels: int
  features: int = 64
  hidden: tuple[int, ...] = (1024,)
  activation: str = 'relu'
  negative_slope: float = 0.1
  dtype: Any = jnp.float32
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self, z: Float[Array, 'n d'], keys: Key[Array, ' n'], train: bool
  ) -> Float[Array, 'n h w c']:
    norm = batch_norm(train, self.dtype, self.axis_name)
    act = partial(activation, self.activation, self.negative_slope)
    upsample = partial(
      ConvTranspose, kernel=4, stride=2, padding=1, dtype=self.dtype
    )
    size, width = quarter(self.resolution), 2 * self.features
    x = z.astype(self.dtype)
    for units in (*self.hidden, size * size * width):
      x = act()(norm()(_dense(units, self.dtype)(x)))
    x = x.reshape(-1, size, size, width)
    x = act()(norm()(upsample(self.features)(x)))
    x = upsample(self.channels, use_bias=True)(x)
    return jnp.tanh(x.astype(jnp.float32))


class Discriminator(nn.Module):
  """Maps images to logits: two convolutions, and a dense layer.

  Attributes:
    resolution: That of the images.
    features: Channels after the first layer; the second has twice as many.
    hidden: Widths of the dense layers.
    normalized: Whether to use BatchNorm; WGAN-GP has none, as its penalty is
      of single images. The second head has it in any case.
    outputs: Outputs of a second head, with a hidden layer of its own; see
      `mlp.Discriminator`.
    Others: See `Generator`.
  """

  resolution: int
  features: int = 64
  hidden: tuple[int, ...] = (1024,)
  normalized: bool = True
  outputs: int = 0
  activation: str = 'leaky_relu'
  negative_slope: float = 0.1
  dtype: Any = jnp.float32
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self, images: Float[Array, 'n h w c'], keys: Key[Array, ' n'], train: bool
  ) -> Any:
    norm = batch_norm(train, self.dtype, self.axis_name)
    normalize = lambda x: norm()(x) if self.normalized else x
    act = partial(activation, self.activation, self.negative_slope)
    downsample = partial(
      Conv, kernel=4, stride=2, padding=1, use_bias=True, dtype=self.dtype
    )
    quarter(self.resolution)
    x = act()(downsample(self.features)(images))
    x = act()(normalize(downsample(2 * self.features)(x)))
    x = x.reshape(len(x), -1)
    for units in self.hidden:
      x = act()(normalize(_dense(units, self.dtype)(x)))
    head = partial(nn.Dense, kernel_init=weight_init, dtype=jnp.float32)
    logits = head(1)(x)[:, 0]
    if not self.outputs:
      return logits
    codes = act()(norm()(_dense(HEAD_WIDTH, self.dtype)(x)))
    return logits, head(self.outputs)(codes)
