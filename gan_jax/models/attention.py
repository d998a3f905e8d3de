"""Self-attention over the pixels of a feature map.

Zhang et al. 2019 (SAGAN), section 3, as in the authors' code: the keys and
values are max-pooled to half the size, which equation 1 of the paper omits.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gan_jax.errors import UserError
from gan_jax.models.spectral import Conv


class SelfAttention(nn.Module):
  """x + gamma * o(attention of q(x), k(x) and v(x)), with gamma = 0 at first.

  q and k have an eighth of the channels and v half of them; all are 1x1
  convolutions without bias. The logits are not divided by the square root of
  the number of channels.

  Attributes:
    spectral: Whether to use spectral normalization.
    kernel_init: See Flax.
    dtype: Computation dtype; the softmax is in at least float32.
  """

  spectral: bool
  kernel_init: Callable
  dtype: Any

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w c']) -> Float[Array, 'n h w c']:
    n, h, w, c = x.shape
    if c < 8:
      raise UserError(
        f'self-attention needs 8 or more channels, not {c}: raise '
        'config.model.*.features, or set config.model.*.attention to ()'
      )

    def project(width, name):
      return Conv(
        width, self.spectral, self.kernel_init, self.dtype,
        kernel=1, use_bias=False, name=name,
      )  # fmt: skip

    flat = lambda y: y.reshape(n, -1, y.shape[-1])
    pooled = lambda y: flat(nn.max_pool(y, (2, 2), (2, 2)))
    query = flat(project(c // 8, 'query')(x))
    key = pooled(project(c // 8, 'key')(x))
    value = pooled(project(c // 2, 'value')(x))
    logits = jnp.einsum('nid,njd->nij', query, key)
    exact = jnp.promote_types(logits.dtype, jnp.float32)
    weights = jax.nn.softmax(logits.astype(exact)).astype(self.dtype)
    y = jnp.einsum('nij,njd->nid', weights, value).reshape(n, h, w, -1)
    y = project(c, 'out')(y)
    gamma = self.param('gamma', nn.initializers.zeros, ())
    return x + gamma.astype(y.dtype) * y


def check_attention(
  key: str, attention: Sequence[int], sizes: Sequence[int]
) -> None:
  """Raises UserError if no block has the resolution of an attention layer.

  Args:
    key: The config key of `attention`, for the message.
    attention: Resolutions with self-attention.
    sizes: Resolutions of the outputs of all blocks.
  """
  for size in attention:
    if size not in sizes:
      valid = ', '.join(map(str, dict.fromkeys(sizes)))
      raise UserError(
        f'{key}: no block has an output of {size}x{size} pixels (valid: '
        f'{valid}, or () for no attention)'
      )
