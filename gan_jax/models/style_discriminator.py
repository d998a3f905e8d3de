"""The discriminator of StyleGAN2 (Karras et al. 2020a, and with ADA 2020b).

A residual network with the minibatch standard deviation. The names of the
blocks and the defaults are those of the authors' PyTorch code.
"""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from gan_jax.errors import UserError
from gan_jax.models.layers import minibatch_stddev
from gan_jax.models.style import Images, Mapping, Maps, Widths, resolutions
from gan_jax.models.style_layers import StyleConv, StyleDense
from gan_jax.ops import fir


class _DiscriminatorBlock(nn.Module):
  """The layers of one resolution of D; `first` has the images alone."""

  width: int
  width_below: int
  architecture: str
  first: bool
  clamp: float | None
  dtype: Any

  @nn.compact
  def __call__(
    self, x: Maps | None, images: Maps | None
  ) -> tuple[Maps, Maps | None]:
    def conv(name, features, kernel=3, resample=None):
      return StyleConv(features, kernel, resample, clamp=self.clamp, name=name)

    x = None if x is None else x.astype(self.dtype)
    if self.first or self.architecture == 'skip':
      images = images.astype(self.dtype)
      y = conv('fromrgb', self.width, 1)(images)
      x = y if x is None else x + y
      skipped = self.architecture == 'skip'
      images = fir.downsample(images) if skipped else None
    gain = math.sqrt(0.5) if self.architecture == 'resnet' else 1.0
    y = conv('conv0', self.width)(x)
    y = conv('conv1', self.width_below, resample='down')(y, gain=gain)
    if self.architecture != 'resnet':
      return y, images
    skip = StyleConv(self.width_below, 1, 'down', activate=False, name='skip')
    return skip(x, gain=gain) + y, images


class _Epilogue(nn.Module):
  """The last block of D: 4x4 to `outputs` numbers, in at least float32."""

  width: int
  outputs: int
  architecture: str
  group: int
  stddev_channels: int
  clamp: float | None
  axis_name: str | None

  @nn.compact
  def __call__(self, x: Maps, images: Maps | None) -> Float[Array, 'n outputs']:
    exact = jnp.promote_types(x.dtype, jnp.float32)
    x = x.astype(exact)
    if self.architecture == 'skip':
      from_rgb = StyleConv(self.width, 1, name='fromrgb')
      x = x + from_rgb(images.astype(exact))
    if self.stddev_channels:
      # Parameters are initialized outside of pmap, where no axis exists.
      axis_name = None if self.is_initializing() else self.axis_name
      x = minibatch_stddev(x, self.group, axis_name, self.stddev_channels)
    x = StyleConv(self.width, 3, clamp=self.clamp, name='conv')(x)
    x = x.reshape(len(x), -1)
    x = StyleDense(self.width, activate=True, name='fc')(x)
    return StyleDense(self.outputs, name='out')(x)


class Discriminator(Widths):
  """Maps images to logits.

  A conditional D projects its features on a mapped class (Miyato & Koyama
  2018).

  Attributes:
    group: Group size of the minibatch standard deviation.
    stddev_channels: Number of its channels; 0: none.
    mapping_layers: Number of layers that map the class.
    axis_name: The device axis under pmap.
    Others: See `Widths`.
  """

  architecture: str = 'resnet'
  group: int = 4
  stddev_channels: int = 1
  mapping_layers: int = 8
  axis_name: str | None = None

  def check(self) -> None:
    """Raises UserError if an attribute is invalid."""
    super().check()
    if self.stddev_channels and self.width(4) % self.stddev_channels:
      raise UserError(
        f'stddev_channels={self.stddev_channels} must divide the '
        f'{self.width(4)} feature maps at 4 pixels: set it to 1'
      )

  @nn.compact
  def __call__(
    self,
    images: Images,
    keys: Key[Array, ' n'],
    train: bool,
    labels: Float[Array, 'n k'] | None = None,
  ) -> Float[Array, ' n']:
    """Computes logits."""
    self.check()
    width, exact = self.width(4), images.dtype
    x = None
    for side in reversed(resolutions(self.resolution)[1:]):
      block = _DiscriminatorBlock(
        self.width(side),
        self.width(side // 2),
        self.architecture,
        side == self.resolution,
        self.clamp,
        self.dtype_of(side, exact),
        name=f'b{side}',
      )
      x, images = block(x, images)
    epilogue = _Epilogue(
      width,
      1 if labels is None else width,
      self.architecture,
      self.group,
      self.stddev_channels,
      self.clamp,
      self.axis_name,
      name='b4',
    )
    out = epilogue(x, images)
    if labels is None:
      return out[:, 0]
    mapping = Mapping(width, self.mapping_layers, name='mapping')
    projected = jnp.sum(out * mapping(None, labels), axis=1)
    return projected / math.sqrt(width)
