"""Latent distributions: sampling, interpolation and truncation of z."""

import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.stats import norm
from jaxtyping import Array, Float, Key

from gan_jax.errors import UserError

Scalar = float | Float[Array, '']
Latents = Float[Array, 'n d']


class Latent(NamedTuple):
  """A distribution over z.

  Attributes:
    draw: (key, dim) -> z [dim], one latent.
    interpolate: (z_a, z_b, t [n]) -> z [n, dim]: z_a at t=0, z_b at t=1, along
      a path of typical samples.
    quantile: The quantile function of a coordinate, u in (0, 1) -> z_i. None:
      the coordinates are dependent.
    truncate: (z, threshold) -> z in the dense part of the distribution, whose
      samples are better and less diverse. None: not supported.
  """

  draw: Callable[[Key[Array, ''], int], Float[Array, ' d']]
  interpolate: Callable[[Latents, Latents, Float[Array, ' n']], Latents]
  quantile: Callable[[Array], Array] | None = None
  truncate: Callable[[Latents, Scalar], Latents] | None = None


def gaussian(key: Key[Array, ''], dim: int) -> Float[Array, ' d']:
  """Samples N(0, I)."""
  return jax.random.normal(key, (dim,))


def uniform(key: Key[Array, ''], dim: int) -> Float[Array, ' d']:
  """Samples each coordinate from U(-1, 1)."""
  return jax.random.uniform(key, (dim,), minval=-1.0, maxval=1.0)


def sphere(key: Key[Array, ''], dim: int) -> Float[Array, ' d']:
  """Samples uniformly on the sphere of radius sqrt(dim).

  N(0, I) concentrates near this sphere.
  """
  z = gaussian(key, dim)
  return z * jnp.sqrt(dim / jnp.sum(z**2))


def straight(a: Latents, b: Latents, t: Float[Array, ' n']) -> Latents:
  """Interpolates linearly: (1 - t) a + t b."""
  return (1 - t)[:, None] * a + t[:, None] * b


def great_circle(a: Latents, b: Latents, t: Float[Array, ' n']) -> Latents:
  """Interpolates spherically: a high-dimensional Gaussian is a thin shell.

  sin((1-t) w) / sin(w) a + sin(t w) / sin(w) b, where w is the angle between a
  and b. White 2016, "Sampling generative networks", section 2.1.
  """
  norms = jnp.linalg.norm(a, axis=1) * jnp.linalg.norm(b, axis=1)
  cosine = jnp.sum(a * b, axis=1) / norms
  angle = jnp.arccos(jnp.clip(cosine, -1.0, 1.0))
  near = jnp.sin(angle) < 1e-4
  safe = jnp.where(near, 1.0, jnp.sin(angle))
  from_a = jnp.sin((1 - t) * angle) / safe
  from_b = jnp.sin(t * angle) / safe
  spherical = from_a[:, None] * a + from_b[:, None] * b
  return jnp.where(near[:, None], straight(a, b, t), spherical)


def truncated_gaussian(z: Latents, threshold: Scalar) -> Latents:
  """Maps samples of N(0, I) to N(0, I) truncated to |z_i| < threshold.

  The quantiles are kept: z' = P^-1(P(-t) + P(z) (P(t) - P(-t))), where P is the
  normal distribution function and t the threshold. Brock et al. 2019 (BigGAN),
  section 3.1, resample instead.
  """
  below = norm.cdf(-threshold)
  # Computed in the lower half, where float32 is more precise.
  half = norm.ppf(below + norm.cdf(-jnp.abs(z)) * (1 - 2 * below))
  return -jnp.sign(z) * half


LATENTS: dict[str, Latent] = {
  'gaussian': Latent(gaussian, great_circle, norm.ppf, truncated_gaussian),
  'sphere': Latent(sphere, great_circle),
  'uniform': Latent(uniform, straight, lambda u: 2 * u - 1),
}


def truncate(
  latent: Latent, inputs: dict[str, Any], threshold: Scalar
) -> dict[str, Any]:
  """Truncates the entry `z` of inputs; see `Latent.truncate`.

  Raises:
    UserError: The threshold is not a positive number.
  """
  if not isinstance(threshold, numbers.Real) or not threshold > 0:
    raise UserError(f'truncation={threshold!r} must be a positive number')
  return {**inputs, 'z': latent.truncate(inputs['z'], threshold)}
