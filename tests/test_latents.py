"""Tests of the latent distributions and their interpolation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.games.latents import LATENTS

DIM, N = 16, 4096


def sample(name, seed=0):
  keys = jax.random.split(jax.random.key(seed), N)
  return jax.vmap(lambda key: LATENTS[name].draw(key, DIM))(keys)


@pytest.mark.parametrize(
  ('name', 'variance'), [('gaussian', 1), ('uniform', 1 / 3), ('sphere', 1)]
)
def test_latents_have_mean_0_and_known_variance(name, variance):
  """Within 4 standard errors of N * DIM draws."""
  z = np.asarray(sample(name), np.float64)
  error = 4 / np.sqrt(N * DIM)
  assert abs(z.mean()) < error
  assert abs((z**2).mean() - variance) < 2 * error
  covariance = z.T @ z / N - variance * np.eye(DIM)
  assert abs(covariance).max() < 6 * np.sqrt(2) / np.sqrt(N)


def test_latents_lie_in_their_support():
  uniform = sample('uniform')
  assert (abs(uniform) <= 1).all()
  assert abs(uniform).max() > 0.99
  radius = jnp.linalg.norm(sample('sphere'), axis=1)
  np.testing.assert_allclose(radius, np.sqrt(DIM), rtol=1e-5)


@pytest.mark.parametrize('name', LATENTS)
def test_interpolation_reaches_its_endpoints(name):
  a, b = sample(name, 1)[:8], sample(name, 2)[:8]
  path = LATENTS[name].interpolate
  np.testing.assert_allclose(path(a, b, jnp.zeros(8)), a, atol=1e-5)
  np.testing.assert_allclose(path(a, b, jnp.ones(8)), b, atol=1e-5)
  np.testing.assert_allclose(path(a, a, jnp.full(8, 0.3)), a, atol=1e-5)


def test_interpolation_on_the_sphere_by_hand():
  """t = 1/3 from (2, 0) to (0, 2) is 2 (cos 30, sin 30 degrees)."""
  a, b = jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 2.0]])
  point = LATENTS['sphere'].interpolate(a, b, jnp.array([1 / 3]))
  np.testing.assert_allclose(point, [[np.sqrt(3), 1.0]], rtol=1e-6)
  point = LATENTS['uniform'].interpolate(a, b, jnp.array([0.25]))
  np.testing.assert_allclose(point, [[1.5, 0.5]])
