"""Images made larger and smaller by whole factors."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def nearest(x: Float[Array, 'n h w c'], factor: int) -> Float[Array, 'n H W c']:
  """Each pixel as a square of factor x factor."""
  if factor == 1:
    return x
  n, h, w, c = x.shape
  squares = jnp.broadcast_to(
    x[:, :, None, :, None, :], (n, h, factor, w, factor, c)
  )
  return squares.reshape(n, h * factor, w * factor, c)


def box(x: Float[Array, 'n H W c'], factor: int) -> Float[Array, 'n h w c']:
  """The mean of each square of factor x factor: average pooling."""
  if factor == 1:
    return x
  n, h, w, c = x.shape
  squares = x.reshape(n, h // factor, factor, w // factor, factor, c)
  return squares.mean((2, 4))
