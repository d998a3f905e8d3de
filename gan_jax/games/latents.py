"""Latent distributions: how z is drawn, and the path between two of them."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.stats import norm
from jaxtyping import Array, Float, Key

Scalar = float | Float[Array, '']
Latents = Float[Array, 'n d']


class Latent(NamedTuple):
  """A distribution over z.

  Attributes:
    draw: (key, dim) -> z [dim], one latent.
    interpolate: (z_a, z_b, t [n]) -> z [n, dim]: z_a at t=0, z_b at t=1, by a
      way on which the distribution is at home.
    quantile: (u in (0, 1)) -> the coordinate of z below which it is with
      probability u. None: its coordinates depend on each other.
    truncate: (z, threshold) -> z nearer to where the distribution is dense:
      fewer kinds of samples, and better ones. None: it is dense nowhere.
  """

  draw: Callable[[Key[Array, ''], int], Float[Array, ' d']]
  interpolate: Callable[[Latents, Latents, Float[Array, ' n']], Latents]
  quantile: Callable[[Array], Array] | None = None
  truncate: Callable[[Latents, Scalar], Latents] | None = None


def gaussian(key: Key[Array, ''], dim: int) -> Float[Array, ' d']:
  """N(0, I)."""
  return jax.random.normal(key, (dim,))


def uniform(key: Key[Array, ''], dim: int) -> Float[Array, ' d']:
  """U(-1, 1) in each coordinate."""
  return jax.random.uniform(key, (dim,), minval=-1.0, maxval=1.0)


def sphere(key: Key[Array, ''], dim: int) -> Float[Array, ' d']:
  """Uniform on the sphere of radius sqrt(dim), where N(0, I) is also found."""
  z = gaussian(key, dim)
  return z * jnp.sqrt(dim / jnp.sum(z**2))


def straight(a: Latents, b: Latents, t: Float[Array, ' n']) -> Latents:
  """(1 - t) a + t b."""
  return (1 - t)[:, None] * a + t[:, None] * b


def great_circle(a: Latents, b: Latents, t: Float[Array, ' n']) -> Latents:
  """Spherical interpolation: a Gaussian in high dimension is a thin shell.

  sin((1-t) w) / sin(w) a + sin(t w) / sin(w) b, with w the angle between a
  and b. White 2016, "Sampling generative networks", section 2.1.
  """
  norms = jnp.linalg.norm(a, axis=1) * jnp.linalg.norm(b, axis=1)
  cosine = jnp.sum(a * b, axis=1) / norms
  angle = jnp.arccos(jnp.clip(cosine, -1.0, 1.0))
  near = jnp.sin(angle) < 1e-4
  safe = jnp.where(near, 1.0, jnp.sin(angle))
  from_a = jnp.sin((1 - t) * angle) / safe
  from_b = jnp.sin(t * angle) / safe
  curved = from_a[:, None] * a + from_b[:, None] * b
  return jnp.where(near[:, None], straight(a, b, t), curved)


def truncated_gaussian(z: Latents, threshold: Scalar) -> Latents:
  """z of N(0, I) -> of N(0, I), given that each |z_i| < threshold.

  By way of the quantiles: z' = P^-1(P(-t) + P(z) (P(t) - P(-t))), with the
  normal distribution function P. Brock et al. 2019 (BigGAN), section 3.1, who
  draw anew instead.
  """
  below = norm.cdf(-threshold)
  # In the lower half, where float32 has the digits.
  half = norm.ppf(below + norm.cdf(-jnp.abs(z)) * (1 - 2 * below))
  return -jnp.sign(z) * half


LATENTS: dict[str, Latent] = {
  'gaussian': Latent(gaussian, great_circle, norm.ppf, truncated_gaussian),
  'sphere': Latent(sphere, great_circle),
  'uniform': Latent(uniform, straight, lambda u: 2 * u - 1),
}
