"""The generator of StyleGAN (Karras et al. 2019), without progressive growing.

Unlike that of 2020, each layer is normalized by AdaIN: the statistics of every
feature map are removed and set by w (equation 1, figure 1b). The layers are
those of the authors' TensorFlow code with its 'fixed' structure; the mapping
network is that of StyleGAN2. D is models.style_discriminator with the
architecture 'orig'.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from gan_jax import ops
from gan_jax.errors import UserError
from gan_jax.models.layers import EqualConv
from gan_jax.models.style import (
  Images,
  StyleBased,
  Styles,
  layer_noises,
  resolutions,
)
from gan_jax.models.style_layers import StyleDense
from gan_jax.ops import fir
from gan_jax.ops.resample import upsample_nearest

BLUR = (1.0, 2.0, 1.0)


def adain(
  x: Images, scale: Float[Array, 'n c'], shift: Float[Array, 'n c']
) -> Images:
  """Sets the statistics of each feature map of each image.

  (1 + scale) (x - mean) / sqrt(var + 1e-8) + shift, in at least float32: Karras
  et al. 2019, equation 1, with 1 + scale as the authors' code has it.
  """
  exact = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  centred = exact - exact.mean((1, 2), keepdims=True)
  variance = jnp.square(centred).mean((1, 2), keepdims=True)
  normal = centred * jax.lax.rsqrt(variance + 1e-8)
  scaled = normal * (1 + scale)[:, None, None] + shift[:, None, None]
  return scaled.astype(x.dtype)


class _Epilogue(nn.Module):
  """Noise, bias, leaky ReLU and AdaIN, after a convolution."""

  @nn.compact
  def __call__(
    self,
    x: Images,
    w: Float[Array, 'n d'],
    noise: Float[Array, 'n h w'] | str | None,
  ) -> Images:
    features, side = x.shape[-1], x.shape[1]
    strength = self.param('noise_strength', nn.initializers.zeros, (features,))
    bias = self.param('bias', nn.initializers.zeros, (features,))
    # The constant noise is sampled once; it is not trained.
    constant = self.variable(
      'noise',
      'constant',
      lambda: jax.random.normal(self.make_rng('params'), (side, side)),
    )
    exact = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    if isinstance(noise, str):
      noise = constant.value[None]
    if noise is not None:
      exact = exact + noise[..., None] * strength[None, None, None]
    exact = nn.leaky_relu(exact + bias[None, None, None], 0.2)
    styles = StyleDense(2 * features, name='affine')(w)
    scale, shift = jnp.split(styles, 2, axis=1)
    return adain(exact, scale, shift).astype(x.dtype)


class _Block(nn.Module):
  """The two layers of one resolution; `first` is the 4x4 block."""

  width: int
  first: bool
  dtype: Any

  @nn.compact
  def __call__(
    self, x: Images | None, ws: Styles, noises: list[Any]
  ) -> Float[Array, 'n H W d']:
    def conv(name: str, x: Images) -> Array:
      shape = 3, 3, x.shape[-1], self.width
      kernel = self.param(name, nn.initializers.normal(1.0), shape)
      kernel = kernel * math.sqrt(2 / math.prod(shape[:3]))  # He
      return ops.conv(x, kernel.astype(x.dtype), padding=1)

    if self.first:
      shape = 4, 4, self.width
      x = self.param('const', nn.initializers.ones, shape)
      x = jnp.broadcast_to(x.astype(self.dtype), (len(ws), *shape))
    else:
      x = conv('kernel0', upsample_nearest(x.astype(self.dtype), 2))
      x = fir.upfirdn(x, BLUR, padding=(1, 1))
    x = _Epilogue(name='layer0')(x, ws[:, 0], noises[0])
    x = conv('kernel1', x)
    return _Epilogue(name='layer1')(x, ws[:, 1], noises[1])


class Synthesis(nn.Module):
  """Maps a w for each layer to images, without an output activation.

  Attributes: See `Generator`.
  """

  resolution: int
  channels: int
  features: int
  most_features: int
  dtype: Any

  @nn.compact
  def __call__(
    self, ws: Styles, keys: Key[Array, ' n'], noise: str = 'random'
  ) -> Images:
    """Generates images; see `models.style.Synthesis` for the arguments."""
    sides = resolutions(self.resolution)
    noises = layer_noises(
      self, [side for side in sides for _ in range(2)], ws.dtype, keys, noise
    )
    low = jnp.finfo(self.dtype).bits < 32
    x, dtype = None, self.dtype if low else ws.dtype
    for index, side in enumerate(sides):
      width = min(self.features // side, self.most_features)
      block = _Block(width, side == 4, dtype, name=f'b{side}')
      x = block(x, ws[:, 2 * index :], noises[2 * index :])
    exact = jnp.promote_types(x.dtype, ws.dtype)
    return EqualConv(self.channels, 1, 1.0, exact, name='to_rgb')(x)


class Generator(StyleBased):
  """Maps z to images by way of w.

  Attributes:
    features, most_features: A resolution has min(features // resolution,
      most_features) feature maps.
    dtype: Computation dtype of the convolutions; the parameters are float32.
    Others: See `StyleBased`.
  """

  features: int = 16384
  most_features: int = 512
  dtype: Any = jnp.float32

  def setup(self):
    resolutions(self.resolution)  # checks it
    if self.features < self.resolution:
      raise UserError(
        f'features={self.features} of a style network gives no feature map at '
        f'{self.resolution} pixels: set it to {self.resolution} or more'
      )
    self.prepare()
    self.synthesis = Synthesis(
      self.resolution,
      self.channels,
      self.features,
      self.most_features,
      self.dtype,
    )
