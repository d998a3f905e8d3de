"""Layers with biases that may be spectrally normalised.

W / s, with s = v^T W u, v = W u / |W u|, u of length 1. u moves by one power
iteration in a pass in which the collection 'spectral' may change: once in a
step of D, all of whose passes have the same s. W is a matrix [inputs, outputs];
a convolution's inputs are its taps. Miyato et al. 2018 (SNGAN), section 2.1 and
algorithm 1.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gan_jax import ops
from gan_jax.models.layers import add_bias


class _Layer(nn.Module):
  """A layer that is linear.

  Attributes:
    features: Channels, or units, that come out.
    spectral: Whether its weights are divided by their largest singular value.
    kernel_init: As of Flax.
    dtype: What it computes in; parameters are float32.
  """

  features: int
  spectral: bool = False
  kernel_init: Callable = nn.initializers.glorot_uniform()
  dtype: Any = jnp.float32

  def weights(self, *shape: int) -> Array:
    w = self.param('kernel', self.kernel_init, shape)
    if not self.spectral:
      return w.astype(self.dtype)
    normal = lambda: jax.random.normal(self.make_rng('params'), shape[-1:])
    kept = self.variable('spectral', 'u', lambda: _unit(normal()))
    matrix = w.reshape(-1, shape[-1])
    fixed = jax.lax.stop_gradient(matrix)
    if self.is_mutable_collection('spectral') and not self.is_initializing():
      kept.value = _unit(_unit(fixed @ kept.value) @ fixed)
    u = kept.value
    v = _unit(fixed @ u)
    return (w / (v @ matrix @ u)).astype(self.dtype)

  def biased(self, x: Array) -> Array:
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    return add_bias(x, bias, self.dtype)


def _unit(x: Array) -> Array:
  return x / (jnp.linalg.norm(x) + 1e-12)


class Dense(_Layer):
  """A dense layer."""

  @nn.compact
  def __call__(self, x: Float[Array, 'n d']) -> Float[Array, 'n e']:
    w = self.weights(x.shape[-1], self.features)
    return self.biased(x.astype(self.dtype) @ w)


class Embed(_Layer):
  """What stands for a class: labels @ W, without a bias."""

  @nn.compact
  def __call__(self, labels: Float[Array, 'n classes']) -> Float[Array, 'n e']:
    w = self.weights(labels.shape[-1], self.features)
    return labels.astype(self.dtype) @ w


class Conv(_Layer):
  """A convolution that keeps the size; `kernel`: an odd number of pixels."""

  kernel: int = 3

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w c']) -> Float[Array, 'n h w d']:
    w = self.weights(self.kernel, self.kernel, x.shape[-1], self.features)
    x = ops.conv(x.astype(self.dtype), w, padding=self.kernel // 2)
    return self.biased(x)
