"""BigGAN's generator: a shared class embedding and hierarchical latents.

Brock et al. 2019, "Large scale GAN training for high fidelity natural image
synthesis", sections 3.1 and appendix B (figure 15). The discriminator is
`resnet.Discriminator` with `wide`, attention and labels.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from gan_jax.errors import UserError
from gan_jax.models import resnet
from gan_jax.models.spectral import Embed


class LinearBatchNorm(nn.Module):
  """BatchNorm with gain 1 + U c and bias V c, linear in the condition c.

  Attributes:
    train: Whether to use batch statistics instead of running averages.
    dtype: Computation dtype.
    axis_name: The device axis under pmap: the statistics are those of the
      global batch (cross-replica BatchNorm).
    spectral: Whether U and V have spectral normalization.
    kernel_init: See Flax.
  """

  train: bool
  dtype: Any
  axis_name: str | None
  spectral: bool
  kernel_init: Callable

  @nn.compact
  def __call__(
    self, x: Float[Array, 'n h w c'], condition: Float[Array, 'n k']
  ) -> Float[Array, 'n h w c']:
    exact = jnp.promote_types(self.dtype, jnp.float32)
    x = nn.BatchNorm(
      use_running_average=not self.train,
      momentum=0.9,
      epsilon=1e-5,
      dtype=exact,
      use_scale=False,
      use_bias=False,
      axis_name=self.axis_name,
    )(x)
    linear = partial(Embed, x.shape[-1], self.spectral, self.kernel_init, exact)
    gain = 1 + linear(name='gain')(condition)
    bias = linear(name='bias')(condition)
    return (gain[:, None, None] * x + bias[:, None, None]).astype(self.dtype)


class Generator(resnet.Generator):
  """Maps z to images; see `resnet.Generator`.

  z is split into equal parts: the first is the input of the dense layer, and
  each block's norms see one of the others beside the embedding of the class,
  which all blocks share.

  Attributes:
    shared_dim: Dimension of the class embedding.
  """

  shared_dim: int = 128
  spectral: bool = True
  initializer: str = 'orthogonal'

  def conditions(
    self,
    z: Float[Array, 'n d'],
    labels: resnet.Labels | None,
    inits: resnet.Inits,
  ) -> tuple[Float[Array, 'n e'], list[Float[Array, 'n k']]]:
    """Splits z, and joins its parts with the class embedding.

    Raises:
      UserError: The dimension of z is not a multiple of the number of parts.
    """
    parts, dim = len(self.features), z.shape[-1]
    if dim % parts:
      raise UserError(
        f'config.game.latent_dim={dim} must be a multiple of {parts}: a part '
        'for the dense layer, and one for each block'
      )
    first, *others = jnp.split(z, parts, axis=-1)
    if labels is None:
      return first, others
    exact = jnp.promote_types(self.dtype, jnp.float32)
    # Unlike the other layers, without spectral normalization.
    embed = Embed(
      self.shared_dim, kernel_init=inits.other, dtype=exact, name='shared'
    )
    shared = embed(labels)
    return first, [jnp.concatenate([shared, part], -1) for part in others]

  def norm(
    self, train: bool, inits: resnet.Inits
  ) -> Callable[[], LinearBatchNorm]:
    """Returns a function that makes a norm (x, condition) -> x."""
    return partial(
      LinearBatchNorm,
      train,
      self.dtype,
      self.axis_name,
      self.spectral,
      inits.other,
    )
