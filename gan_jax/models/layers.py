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

# Weights N(0, 0.02), BatchNorm gains N(1, 0.02): Radford et al. 2016.
weight_init = nn.initializers.normal(0.02)


def gain_init(key, shape, dtype):
  """N(1, 0.02)."""
  return 1 + weight_init(key, shape, dtype)


class _Strided(nn.Module):
  """A convolution without bias, or the transpose of one.

  Attributes:
    features: Channels that come out.
    kernel, stride, padding: Of the convolution, in both directions.
    dtype: What it computes in; the kernel is float32.
  """

  features: int
  kernel: int
  stride: int
  padding: int
  dtype: Any


class Conv(_Strided):
  """A strided convolution, kernel [k, k, in, out]."""

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w c']) -> Float[Array, 'n h2 w2 d']:
    shape = self.kernel, self.kernel, x.shape[-1], self.features
    w = self.param('kernel', weight_init, shape).astype(self.dtype)
    return ops.conv(x.astype(self.dtype), w, self.stride, self.padding)


class ConvTranspose(_Strided):
  """The transpose of `Conv`, kernel [k, k, out, in].

  What comes out is `stride` times as large.
  """

  @nn.compact
  def __call__(self, y: Float[Array, 'n h w d']) -> Float[Array, 'n h2 w2 c']:
    shape = self.kernel, self.kernel, self.features, y.shape[-1]
    w = self.param('kernel', weight_init, shape).astype(self.dtype)
    size = self.stride * y.shape[1], self.stride * y.shape[2]
    y = y.astype(self.dtype)
    return ops.conv_transpose(y, w, self.stride, self.padding, size)


class Dropout(nn.Module):
  """Dropout with each example's own mask, whatever device it is on.

  Srivastava et al. 2014; kept units are divided by (1 - rate).
  """

  rate: float

  @nn.compact
  def __call__(
    self, x: Float[Array, 'n ...'], keys: Key[Array, ' n'], train: bool
  ) -> Float[Array, 'n ...']:
    if not 0 <= self.rate < 1:
      raise UserError(f'dropout={self.rate} must be from 0 to below 1')
    if not train or self.rate == 0:
      return x
    keep = 1 - self.rate
    draw = partial(jax.random.bernoulli, p=keep, shape=x.shape[1:])
    kept = jax.vmap(draw)(layer_keys(self, keys))
    return jnp.where(kept, x / keep, 0)


class PRelu(nn.Module):
  """max(x, 0) + a min(x, 0), with one learnt `a`. He et al. 2015."""

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
  """The activation called `name`; made inside a module's compact call.

  `negative_slope` is LeakyReLU's, and where PReLU's begins. DCGAN has 0.2;
  0.01 is the classic default.
  """
  return choose('activation', name, ACTIVATIONS)(negative_slope)


def batch_norm(train: bool, dtype, axis_name: str | None) -> Callable:
  """BatchNorm as in the reference DCGAN: eps 1e-5, statistics averaged by .9.

  The batch is the global one, over all devices.
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


class ConditionalBatchNorm(nn.Module):
  """BatchNorm with a gain and a bias of its own for each class.

  gain[y] x + bias[y] of the normalised x: de Vries et al. 2017; Miyato & Koyama
  2018. Without labels: BatchNorm.

  Attributes:
    train: Whether statistics are of the batch; else the running ones are taken.
    dtype: What it computes in.
    axis_name: The devices' axis under pmap.
  """

  train: bool
  dtype: Any
  axis_name: str | None

  @nn.compact
  def __call__(
    self, x: Float[Array, 'n h w c'], labels: Float[Array, 'n k'] | None
  ) -> Float[Array, 'n h w c']:
    alone = labels is None
    norm = nn.BatchNorm(
      use_running_average=not self.train,
      momentum=0.9,
      epsilon=1e-5,
      dtype=self.dtype,
      use_scale=alone,
      use_bias=alone,
      axis_name=self.axis_name,
    )
    x = norm(x)
    if alone:
      return x
    shape = labels.shape[-1], x.shape[-1]
    gain = labels @ self.param('gain', nn.initializers.ones, shape)
    bias = labels @ self.param('bias', nn.initializers.zeros, shape)
    x = gain[:, None, None] * x.astype(jnp.float32) + bias[:, None, None]
    return x.astype(self.dtype)


def add_bias(x: Array, bias: Float[Array, ' c'], dtype: Any) -> Array:
  """x + bias, as `dtype`; in float32, for a bias's gradient is a long sum."""
  bias = bias.reshape(*[1] * (x.ndim - 1), -1)
  exact = jnp.promote_types(x.dtype, jnp.float32)
  return (x.astype(exact) + bias).astype(dtype)


class _Equalized(nn.Module):
  """A layer whose weights are N(0, 1), and scaled as it is used.

  w gain / sqrt(inputs of a unit): He's initialisation, but at run time, so that
  optimizers that normalise their steps move all layers alike. Karras et al.
  2018, section 4.1.

  Attributes:
    features: Channels, or units, that come out.
    dtype: What it computes in; kernel and bias are float32.
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
    pixels: The units are channels of so many pixels, which share their bias.
  """

  features: int
  gain: float = math.sqrt(2)
  dtype: Any = jnp.float32
  pixels: int = 1

  @nn.compact
  def __call__(self, x: Float[Array, 'n d']) -> Float[Array, 'n e']:
    w = self.weights((x.shape[-1], self.features), self.gain)
    y = x.astype(self.dtype) @ w
    return self.biased(y.reshape(len(y), self.pixels, -1)).reshape(y.shape)


class EqualConv(_Equalized):
  """A convolution that keeps the size, with the equalized learning rate.

  Attributes:
    kernel: An odd number of pixels.
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
  """x / sqrt(mean over channels of x^2 + 1e-8). Karras et al. 2018, 4.2."""
  squares = jnp.square(x.astype(jnp.float32))
  scale = jax.lax.rsqrt(squares.mean(-1, keepdims=True) + 1e-8)
  return x * scale.astype(x.dtype)


def minibatch_stddev(
  x: Float[Array, 'n h w c'], group: int, axis_name: str | None
) -> Float[Array, 'n h w d']:
  """Adds a channel that tells how various the examples of a group are.

  The standard deviation of each feature over the group, averaged over features
  and pixels. Karras et al. 2018, section 3. A group is of consecutive examples
  (of the largest number up to `group` that divides the batch: of a prime one
  of 1, which tells nothing), so that it is the same on any number of devices.

  Args:
    x: Features.
    group: Examples in a group, at most.
    axis_name: The devices' axis under pmap.
  """
  if group < 1:
    raise UserError(f'group={group} of the minibatch must be 1 or more')
  n = len(x)
  devices = 1 if axis_name is None else jax.lax.axis_size(axis_name)
  size = next(s for s in range(group, 0, -1) if n * devices % s == 0)
  everyone = x if n % size == 0 else axis.gather(x, axis_name)
  groups = everyone.astype(jnp.float32).reshape(-1, size, *x.shape[1:])
  deviation = jnp.sqrt(jnp.var(groups, axis=1) + 1e-8).mean((1, 2, 3))
  of_each = jnp.repeat(deviation, size)
  if len(everyone) != n:
    first = n * jax.lax.axis_index(axis_name)
    of_each = jax.lax.dynamic_slice_in_dim(of_each, first, n)
  shape = (*x.shape[:3], 1)
  told = jnp.broadcast_to(of_each[:, None, None, None], shape)
  return jnp.concatenate([x, told.astype(x.dtype)], axis=-1)
