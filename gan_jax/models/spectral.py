"""Layers with optional spectral normalization.

The weights are W / s with s = v^T W u, v = W u / |W u| and |u| = 1. u is
updated by one power iteration in each pass in which the collection 'spectral'
is mutable: once per discriminator update, so that all passes of the update have
the same s. W is a matrix [inputs, outputs]; a convolution's inputs are its
kernel positions and channels. Miyato et al. 2018 (SNGAN), section 2.1 and
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
  """A linear layer.

  Attributes:
    features: Output channels or units.
    spectral: Whether to divide the weights by their largest singular value.
    kernel_init: See Flax.
    dtype: Computation dtype; parameters are float32.
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
    u_variable = self.variable('spectral', 'u', lambda: _normalize(normal()))
    matrix = w.reshape(-1, shape[-1])
    constant = jax.lax.stop_gradient(matrix)
    if self.is_mutable_collection('spectral') and not self.is_initializing():
      v = _normalize(constant @ u_variable.value)
      u_variable.value = _normalize(v @ constant)
    u = u_variable.value
    v = _normalize(constant @ u)
    return (w / (v @ matrix @ u)).astype(self.dtype)

  def biased(self, x: Array) -> Array:
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    return add_bias(x, bias, self.dtype)


def _normalize(x: Array) -> Array:
  return x / (jnp.linalg.norm(x) + 1e-12)


class Dense(_Layer):
  """A dense layer."""

  @nn.compact
  def __call__(self, x: Float[Array, 'n d']) -> Float[Array, 'n e']:
    w = self.weights(x.shape[-1], self.features)
    return self.biased(x.astype(self.dtype) @ w)


class Embed(_Layer):
  """A class embedding, labels @ W, without a bias."""

  @nn.compact
  def __call__(self, labels: Float[Array, 'n classes']) -> Float[Array, 'n e']:
    w = self.weights(labels.shape[-1], self.features)
    return labels.astype(self.dtype) @ w


class Conv(_Layer):
  """A convolution that keeps the size.

  Attributes:
    kernel: Kernel size; odd.
    use_bias: Whether to add a bias per channel.
  """

  kernel: int = 3
  use_bias: bool = True

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w c']) -> Float[Array, 'n h w d']:
    w = self.weights(self.kernel, self.kernel, x.shape[-1], self.features)
    x = ops.conv(x.astype(self.dtype), w, padding=self.kernel // 2)
    return self.biased(x) if self.use_bias else x
