"""The vanilla GAN's multilayer perceptrons (Goodfellow et al. 2014)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from gan_jax.models.layers import Dropout, activation, minibatch_stddev
from gan_jax.registry import choose

OUTPUTS = {'linear': lambda x: x, 'tanh': jnp.tanh}


class Generator(nn.Module):
  """Maps z to images through dense layers.

  Attributes:
    resolution, channels: Those of the images.
    hidden: Widths of the hidden layers.
    output: 'tanh', or 'linear' for unbounded points.
    activation, negative_slope: See `layers.activation`.
    dtype: Computation dtype; the parameters are float32.
  """

  resolution: int
  channels: int
  hidden: tuple[int, ...] = (256, 512, 1024)
  output: str = 'tanh'
  activation: str = 'relu'
  negative_slope: float = 0.2
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    z: Float[Array, 'n d'],
    keys: Key[Array, ' n'],
    train: bool,
    labels: Float[Array, 'n k'] | None = None,
  ) -> Float[Array, 'n h w c']:
    """Concatenates labels to z (Mirza & Osindero 2014)."""
    x = _concatenate(z, labels).astype(self.dtype)
    for width in self.hidden:
      x = nn.Dense(width, dtype=self.dtype)(x)
      x = activation(self.activation, self.negative_slope)(x)
    shape = (self.resolution, self.resolution, self.channels)
    # bfloat16 is too coarse for the coordinates of points.
    dtype = jnp.float32 if self.output == 'linear' else self.dtype
    x = nn.Dense(shape[0] * shape[1] * shape[2], dtype=dtype)(x)
    output = choose('config.model.gen.output', self.output, OUTPUTS)
    return output(x.astype(jnp.float32)).reshape(-1, *shape)


class Translator(nn.Module):
  """Maps images to images of the same shape through dense layers.

  Attributes:
    Others: See `Generator`.
  """

  hidden: tuple[int, ...] = (128, 128)
  output: str = 'tanh'
  activation: str = 'relu'
  negative_slope: float = 0.2
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, images: Float[Array, 'n h w c'], keys: Key[Array, ' n'], train: bool
  ) -> Float[Array, 'n h w c']:
    resolution, channels = images.shape[2:]
    x = images.reshape(len(images), -1)
    return Generator(
      resolution,
      channels,
      self.hidden,
      self.output,
      self.activation,
      self.negative_slope,
      self.dtype,
    )(x, keys, train)


class Discriminator(nn.Module):
  """Maps images to logits, with dropout after every hidden layer.

  Attributes:
    hidden: Widths of the hidden layers.
    dropout: Fraction of units that are dropped.
    stddev_group: Group size of the minibatch standard deviation before the last
      hidden layer (`layers.minibatch_stddev`). 0: none.
    outputs: Outputs of a second head on the same layers, as for codes
      (InfoGAN) or latents (BiGAN's encoder). 0: no second head.
    axis_name: The device axis under pmap.
    Others: See `Generator`.
  """

  hidden: tuple[int, ...] = (1024, 512, 256)
  dropout: float = 0.3
  stddev_group: int = 0
  outputs: int = 0
  axis_name: str | None = None
  activation: str = 'leaky_relu'
  negative_slope: float = 0.2
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    images: Float[Array, 'n h w c'],
    keys: Key[Array, ' n'],
    train: bool,
    labels: Float[Array, 'n k'] | None = None,
  ) -> Any:
    """Returns logits [n]; with `outputs`, ([n], [n, outputs]).

    Concatenates labels to the pixels (Mirza & Osindero 2014).
    """

    def hidden(width: int, x: Array) -> Array:
      x = nn.Dense(width, dtype=self.dtype)(x)
      x = activation(self.activation, self.negative_slope)(x)
      return Dropout(self.dropout)(x, keys, train)

    x = images.reshape(images.shape[0], -1)
    x = _concatenate(x, labels).astype(self.dtype)
    for width in self.hidden[:-1]:
      x = hidden(width, x)
    if self.stddev_group:
      # Parameters are initialized outside of pmap, where no axis exists.
      axis_name = None if self.is_initializing() else self.axis_name
      x = minibatch_stddev(x[:, None, None], self.stddev_group, axis_name)
      x = x[:, 0, 0]
    for width in self.hidden[-1:]:
      x = hidden(width, x)
    x = nn.Dense(1 + self.outputs, dtype=jnp.float32)(x)
    return (x[:, 0], x[:, 1:]) if self.outputs else x[:, 0]


def _concatenate(x: Float[Array, 'n d'], labels: Array | None) -> Array:
  return x if labels is None else jnp.concatenate([x, labels], axis=-1)
