"""The layers of the style-based networks (Karras et al. 2020, StyleGAN2).

The weights have the equalized learning rate: they are initialized from N(0, 1)
and scaled in each forward pass. Parameters are float32. `dtype` is that of the
convolutions; biases, activations and the norms of weights are computed in at
least float32.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gan_jax import ops
from gan_jax.ops import fir

Images = Float[Array, 'n h w c']

GAIN = math.sqrt(2)  # of the leaky ReLU


def bias_act(
  x: Array,
  bias: Float[Array, ' c'] | None,
  *,
  activate: bool = True,
  gain: float = 1.0,
  clamp: float | None = None,
) -> Array:
  """Computes gain * act(x + bias), clamped to +-gain * clamp.

  act is sqrt(2) times the leaky ReLU of slope 0.2, or the identity. It is
  computed in at least float32; the result has x's dtype.
  """
  exact = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  if bias is not None:
    exact = exact + bias.reshape(*[1] * (x.ndim - 1), -1)
  if activate:
    exact = nn.leaky_relu(exact, 0.2) * (GAIN * gain)
  elif gain != 1:
    exact = exact * gain
  if clamp is not None:
    exact = jnp.clip(exact, -clamp * gain, clamp * gain)
  return exact.astype(x.dtype)


class StyleDense(nn.Module):
  """A dense layer with the equalized learning rate, in at least float32.

  Attributes:
    features: Output units.
    activate: Whether a leaky ReLU follows.
    bias: Initial bias.
    multiplier: Multiplies the learning rate, under Adam: the parameters are
      stored divided by it.
  """

  features: int
  activate: bool = False
  bias: float = 0.0
  multiplier: float = 1.0

  @nn.compact
  def __call__(self, x: Float[Array, 'n d']) -> Float[Array, 'n e']:
    shape = x.shape[-1], self.features
    init = nn.initializers.normal(1 / self.multiplier)
    w = self.param('kernel', init, shape)
    constant = nn.initializers.constant(self.bias)
    b = self.param('bias', constant, (self.features,))
    y = x @ (w * (self.multiplier / math.sqrt(x.shape[-1])))
    return bias_act(y, b * self.multiplier, activate=self.activate)


class StyleConv(nn.Module):
  """A convolution with bias and activation, and resampling by 2.

  Attributes:
    features, kernel: Output channels; kernel size: 1 or 3.
    resample: 'up', 'down', or None.
    activate: Whether the layer has a bias and a leaky ReLU.
    clamp: The output is clamped to +-clamp; None: it is not.
    dtype: Computation dtype.
  """

  features: int
  kernel: int
  resample: str | None = None
  activate: bool = True
  clamp: float | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Images, gain: float = 1.0) -> Float[Array, 'n H W d']:
    shape = self.kernel, self.kernel, x.shape[-1], self.features
    w = self.param('kernel', nn.initializers.normal(1.0), shape)
    w = w / math.sqrt(math.prod(shape[:3]))
    bias = None
    if self.activate:
      bias = self.param('bias', nn.initializers.zeros, (self.features,))
    x = resampled_conv(x, w.astype(x.dtype), self.resample)
    return bias_act(
      x, bias, activate=self.activate, gain=gain, clamp=self.clamp
    )


def resampled_conv(
  x: Images, w: Float[Array, 'k k c d'], resample: str | None
) -> Float[Array, 'n H W d']:
  """Convolves, and changes the resolution by 2 with a low-pass filter.

  The order of convolution and filter is that with the fewest operations.

  Args:
    x, w: Images and a 1x1 or 3x3 filter.
    resample: 'up', 'down', or None.
  """
  point = w.shape[0] == 1
  if resample is None:
    return ops.conv(x, w, padding=w.shape[0] // 2)
  if resample == 'up':
    if point:
      return fir.upsample(ops.conv(x, w))
    x = ops.conv_transpose(x, w.swapaxes(2, 3), stride=2)
    return fir.upfirdn(x, padding=(1, 1), gain=4.0)
  if point:
    return ops.conv(fir.downsample(x), w)
  return ops.conv(fir.upfirdn(x, padding=(2, 2)), w, stride=2)


def modulated_conv(
  x: Images,
  w: Float[Array, 'k k c d'],
  styles: Float[Array, 'n c'],
  *,
  demodulate: bool = True,
  resample: str | None = None,
  fused: bool = False,
) -> Float[Array, 'n H W d']:
  """Convolves each image with its own filter, w scaled by its style.

  With demodulation, each output channel of the scaled filter has norm 1:
  Karras et al. 2020, equations 1 and 3.

  Args:
    x, w, styles: Images, filter, and a scale of each input channel per image.
    demodulate: Whether to normalize the filters.
    resample: As in `resampled_conv`.
    fused: Whether to convolve with n filters, in one grouped convolution,
      instead of scaling the activations before and after a convolution with w.
      The results agree up to rounding.
  """
  dtype = x.dtype
  scale = None
  if demodulate:
    energies = jnp.dot(
      jnp.square(styles),
      jnp.sum(jnp.square(w), (0, 1)),
      precision=jax.lax.Precision.HIGHEST,
    )
    scale = jax.lax.rsqrt(energies + 1e-8)
  if fused:
    filters = w[None] * styles[:, None, None, :, None]
    if demodulate:
      filters = filters * scale[:, None, None, None]
    one = lambda x, w: resampled_conv(x[None], w, resample)[0]
    return jax.vmap(one)(x, filters.astype(dtype))
  x = x * styles[:, None, None].astype(dtype)
  x = resampled_conv(x, w.astype(dtype), resample)
  return x * scale[:, None, None].astype(dtype) if demodulate else x


class SynthesisLayer(nn.Module):
  """A modulated 3x3 convolution with noise, bias and activation.

  Attributes:
    features: Output channels.
    resolution: Output resolution.
    up: Whether the layer doubles the resolution.
    clamp, fused: As in `bias_act` and `modulated_conv`.
  """

  features: int
  resolution: int
  up: bool = False
  clamp: float | None = None
  fused: bool = False

  @nn.compact
  def __call__(
    self,
    x: Images,
    w: Float[Array, 'n d'],
    noise: Float[Array, 'n H W'] | str | None,
    gain: float = 1.0,
  ) -> Float[Array, 'n H W e']:
    """Computes the layer with the given noise, its 'constant' one, or none."""
    channels, side = x.shape[-1], self.resolution
    styles = StyleDense(channels, bias=1.0, name='affine')(w)
    shape = 3, 3, channels, self.features
    kernel = self.param('kernel', nn.initializers.normal(1.0), shape)
    strength = self.param('noise_strength', nn.initializers.zeros, ())
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    # The constant noise is sampled once; it is not trained.
    constant = self.variable(
      'noise',
      'constant',
      lambda: jax.random.normal(self.make_rng('params'), (side, side)),
    )
    x = modulated_conv(
      x, kernel, styles, resample='up' if self.up else None, fused=self.fused
    )
    if isinstance(noise, str):
      noise = constant.value[None]
    if noise is not None:
      x = x + (strength * noise)[..., None].astype(x.dtype)
    return bias_act(x, bias, gain=gain, clamp=self.clamp)


class ToRgb(nn.Module):
  """A modulated 1x1 convolution to images, without demodulation.

  Attributes:
    channels: Channels of the images.
    clamp, fused: As in `SynthesisLayer`.
  """

  channels: int
  clamp: float | None = None
  fused: bool = False

  @nn.compact
  def __call__(self, x: Images, w: Float[Array, 'n d']) -> Images:
    features = x.shape[-1]
    styles = StyleDense(features, bias=1.0, name='affine')(w)
    shape = 1, 1, features, self.channels
    kernel = self.param('kernel', nn.initializers.normal(1.0), shape)
    bias = self.param('bias', nn.initializers.zeros, (self.channels,))
    x = modulated_conv(
      x,
      kernel,
      styles / math.sqrt(features),
      demodulate=False,
      fused=self.fused,
    )
    return bias_act(x, bias, activate=False, clamp=self.clamp)
