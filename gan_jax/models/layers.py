"""Layers that the networks share."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from gan_jax import ops
from gan_jax.errors import UserError
from gan_jax.keys import layer_keys
from gan_jax.ops import axis
from gan_jax.registry import choose

# Weights N(0, 0.02^2), BatchNorm gains N(1, 0.02^2): Radford et al. 2016.
weight_init = nn.initializers.normal(0.02)


def gain_init(key, shape, dtype):
  """Initializes BatchNorm gains from N(1, 0.02^2)."""
  return 1 + weight_init(key, shape, dtype)


class _Strided(nn.Module):
  """A convolution, or the transpose of one.

  Attributes:
    features: Output channels.
    kernel, stride, padding: Those of the convolution, for both axes.
    dtype: Computation dtype; the parameters are float32.
    use_bias: Whether to add a bias per channel.
    kernel_init: Initializes the kernel.
  """

  features: int
  kernel: int
  stride: int
  padding: int
  dtype: Any
  use_bias: bool = False
  kernel_init: Callable = weight_init

  def biased(self, x: Array) -> Array:
    if not self.use_bias:
      return x
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    return add_bias(x, bias, self.dtype)


class Conv(_Strided):
  """A strided convolution, kernel [k, k, in, out]."""

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w c']) -> Float[Array, 'n h2 w2 d']:
    shape = self.kernel, self.kernel, x.shape[-1], self.features
    w = self.param('kernel', self.kernel_init, shape).astype(self.dtype)
    y = ops.conv(x.astype(self.dtype), w, self.stride, self.padding)
    return self.biased(y)


class ConvTranspose(_Strided):
  """The transpose of `Conv`, kernel [k, k, out, in].

  The output is `stride` times as large as the input.
  """

  @nn.compact
  def __call__(self, y: Float[Array, 'n h w d']) -> Float[Array, 'n h2 w2 c']:
    shape = self.kernel, self.kernel, self.features, y.shape[-1]
    w = self.param('kernel', self.kernel_init, shape).astype(self.dtype)
    size = self.stride * y.shape[1], self.stride * y.shape[2]
    y = y.astype(self.dtype)
    x = ops.conv_transpose(y, w, self.stride, self.padding, size)
    return self.biased(x)


class Dropout(nn.Module):
  """Dropout with a mask per example that does not depend on the devices.

  Kept units are divided by (1 - rate). Srivastava et al. 2014.
  """

  rate: float

  @nn.compact
  def __call__(
    self, x: Float[Array, 'n ...'], keys: Key[Array, ' n'], train: bool
  ) -> Float[Array, 'n ...']:
    if not 0 <= self.rate < 1:
      raise UserError(f'dropout={self.rate} must be in [0, 1)')
    if not train or self.rate == 0:
      return x
    keep = 1 - self.rate
    sample_mask = partial(jax.random.bernoulli, p=keep, shape=x.shape[1:])
    kept = jax.vmap(sample_mask)(layer_keys(self, keys))
    return jnp.where(kept, x / keep, 0)


class PRelu(nn.Module):
  """PReLU: max(x, 0) + a min(x, 0) with one learned slope a. He et al. 2015."""

  initial_slope: float = 0.25

  @nn.compact
  def __call__(self, x: Float[Array, '*s']) -> Float[Array, '*s']:
    init = nn.initializers.constant(self.initial_slope)
    slope = self.param('slope', init, ()).astype(x.dtype)
    return jnp.where(x >= 0, x, slope * x)


ACTIVATIONS: dict[str, Callable[[float], Callable]] = {
  'leaky_relu': lambda slope: partial(nn.leaky_relu, negative_slope=slope),
  'prelu': lambda slope: PRelu(slope),
  'relu': lambda slope: nn.relu,
}


def activation(name: str, negative_slope: float) -> Callable:
  """Returns an activation; call this inside a module's compact `__call__`.

  Args:
    name: A key of ACTIVATIONS.
    negative_slope: LeakyReLU's slope, and the initial slope of PReLU. DCGAN
      uses 0.2; 0.01 is the classic default.
  """
  return choose('activation', name, ACTIVATIONS)(negative_slope)


def batch_norm(train: bool, dtype, axis_name: str | None) -> Callable:
  """Returns BatchNorm as in the reference DCGAN: eps 1e-5, momentum 0.9.

  The statistics are those of the global batch, over all devices.
  """
  return partial(
    nn.BatchNorm,
    use_running_average=not train,
    momentum=0.9,
    epsilon=1e-5,
    dtype=dtype,
    scale_init=gain_init,
    axis_name=axis_name,
  )


def instance_norm(x: Float[Array, 'n h w c']) -> Float[Array, 'n h w c']:
  """Normalizes each channel of each image: (x - mean) / sqrt(var + 1e-5).

  Without gain and bias. Ulyanov et al. 2016.
  """
  exact = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  centred = exact - exact.mean((1, 2), keepdims=True)
  variance = jnp.square(centred).mean((1, 2), keepdims=True)
  return (centred * jax.lax.rsqrt(variance + 1e-5)).astype(x.dtype)


# Normalizations of the networks that map images to images: `batch` of the
# whole batch, with gain and bias; `instance` of each image, without them.
NORMS: dict[str, Callable[[bool, Any, str | None], Callable]] = {
  'batch': lambda *how: batch_norm(*how)(),
  'instance': lambda *how: instance_norm,
}


def reflect_pad(
  x: Float[Array, 'n h w c'], border: int
) -> Float[Array, 'n H W c']:
  """Pads each side with its mirror image, without the outermost pixels.

  Raises:
    UserError: The images are too small.
  """
  if min(x.shape[1:3]) <= border:
    raise UserError(
      f'images of {x.shape[1]}x{x.shape[2]} pixels, inside the network, are '
      f'too small for its padding of {border}: use larger images'
    )
  return jnp.pad(x, ((0, 0), *((border, border),) * 2, (0, 0)), mode='reflect')


class ConditionalBatchNorm(nn.Module):
  """BatchNorm with a gain and a bias per class; without labels, BatchNorm.

  gain[y] x + bias[y], where x is normalized: de Vries et al. 2017; Miyato &
  Koyama 2018.

  Attributes:
    train: Whether to use batch statistics instead of running averages.
    dtype: Computation dtype.
    axis_name: The device axis under pmap.
  """

  train: bool
  dtype: Any
  axis_name: str | None

  @nn.compact
  def __call__(
    self, x: Float[Array, 'n h w c'], labels: Float[Array, 'n k'] | None
  ) -> Float[Array, 'n h w c']:
    unconditional = labels is None
    norm = nn.BatchNorm(
      use_running_average=not self.train,
      momentum=0.9,
      epsilon=1e-5,
      dtype=self.dtype,
      use_scale=unconditional,
      use_bias=unconditional,
      axis_name=self.axis_name,
    )
    x = norm(x)
    if unconditional:
      return x
    shape = labels.shape[-1], x.shape[-1]
    gain = labels @ self.param('gain', nn.initializers.ones, shape)
    bias = labels @ self.param('bias', nn.initializers.zeros, shape)
    exact = jnp.promote_types(self.dtype, jnp.float32)
    x = gain[:, None, None] * x.astype(exact) + bias[:, None, None]
    return x.astype(self.dtype)


def add_bias(x: Array, bias: Float[Array, ' c'], dtype: Any) -> Array:
  """Returns x + bias as `dtype`.

  It adds in at least float32, because the gradient of the bias sums over all
  pixels.
  """
  bias = bias.reshape(*[1] * (x.ndim - 1), -1)
  exact = jnp.promote_types(x.dtype, jnp.float32)
  return (x.astype(exact) + bias).astype(dtype)


class _Equalized(nn.Module):
  """A layer with the equalized learning rate (Karras et al. 2018, section 4.1).

  The parameters are initialized from N(0, 1) and multiplied by
  gain / sqrt(fan_in) in each forward pass. This scales the weights as in He
  initialization, and optimizers that normalize gradients change all layers at
  the same relative speed.

  Attributes:
    features: Output channels or units.
    gain: The gain of the activation that follows.
    dtype: Computation dtype; kernel and bias are float32.
  """

  def weights(self, shape: tuple[int, ...], gain: float) -> Array:
    w = self.param('kernel', nn.initializers.normal(1.0), shape)
    return (w * (gain / math.sqrt(math.prod(shape[:-1])))).astype(self.dtype)

  def biased(self, x: Array) -> Array:
    bias = self.param('bias', nn.initializers.zeros, (x.shape[-1],))
    return add_bias(x, bias, self.dtype)


class EqualDense(_Equalized):
  """A dense layer with the equalized learning rate; see `_Equalized`.

  Attributes:
    pixels: Number of pixels that the units form; all pixels share one bias per
      channel.
  """

  features: int
  gain: float = math.sqrt(2)
  dtype: Any = jnp.float32
  pixels: int = 1

  @nn.compact
  def __call__(self, x: Float[Array, 'n d']) -> Float[Array, 'n e']:
    w = self.weights((x.shape[-1], self.features), self.gain)
    y = x.astype(self.dtype) @ w
    pixels = y.reshape(y.shape[0], self.pixels, -1)
    return self.biased(pixels).reshape(y.shape)


class EqualConv(_Equalized):
  """A convolution that keeps the size, with the equalized learning rate.

  Attributes:
    kernel: Kernel size; odd.
  """

  features: int
  kernel: int
  gain: float = math.sqrt(2)
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w c']) -> Float[Array, 'n h w d']:
    shape = (self.kernel, self.kernel, x.shape[-1], self.features)
    w = self.weights(shape, self.gain)
    x = ops.conv(x.astype(self.dtype), w, padding=self.kernel // 2)
    return self.biased(x)


def pixel_norm(x: Float[Array, '*n c']) -> Float[Array, '*n c']:
  """Normalizes each pixel: x / sqrt(mean over channels of x^2 + 1e-8).

  Karras et al. 2018, section 4.2.
  """
  squares = jnp.square(x.astype(jnp.promote_types(x.dtype, jnp.float32)))
  scale = jax.lax.rsqrt(squares.mean(-1, keepdims=True) + 1e-8)
  return x * scale.astype(x.dtype)


def minibatch_stddev(
  x: Float[Array, 'n h w c'],
  group: int,
  axis_name: str | None,
  num_channels: int = 1,
) -> Float[Array, 'n h w d']:
  """Adds the minibatch standard deviation as a channel (Karras et al. 2018, 3).

  It is the standard deviation of each feature over a group of examples,
  averaged over features and pixels. A group is of consecutive examples, so that
  it does not depend on the number of devices. Its size is the largest number up
  to `group` that divides the batch size (1 for a prime batch size above
  `group`, where the channel has no information).

  Args:
    x: Features.
    group: Maximum number of examples in a group.
    axis_name: The device axis under pmap.
    num_channels: Number of added channels; each averages over its part of the
      features.
  """
  if group < 1:
    raise UserError(f'group={group} of the minibatch must be 1 or more')
  n = len(x)
  devices = 1 if axis_name is None else jax.lax.axis_size(axis_name)
  size = next(s for s in range(group, 0, -1) if n * devices % s == 0)
  gathered = x if n % size == 0 else axis.gather(x, axis_name)
  exact = jnp.promote_types(x.dtype, jnp.float32)
  parts = (*x.shape[1:3], num_channels, x.shape[3] // num_channels)
  groups = gathered.astype(exact).reshape(-1, size, *parts)
  group_std = jnp.sqrt(jnp.var(groups, axis=1) + 1e-8).mean((1, 2, 4))
  std = jnp.repeat(group_std, size, axis=0)
  if len(gathered) != n:
    first = n * jax.lax.axis_index(axis_name)
    std = jax.lax.dynamic_slice_in_dim(std, first, n)
  shape = (*x.shape[:3], num_channels)
  added = jnp.broadcast_to(std[:, None, None], shape)
  return jnp.concatenate([x, added.astype(x.dtype)], axis=-1)
