"""Tests of average pooling and upsampling, by hand."""

import jax.numpy as jnp
import numpy as np

from gan_jax.ops.resample import average_pool, upsample_nearest

IMAGES = jnp.arange(2 * 4 * 4 * 3, dtype=jnp.float32).reshape(2, 4, 4, 3)


def test_average_pool_is_the_mean_of_squares():
  small = average_pool(IMAGES, 2)
  assert small.shape == (2, 2, 2, 3)
  for i, j in np.ndindex(2, 2):
    square = np.asarray(IMAGES)[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
    np.testing.assert_allclose(small[:, i, j], square.mean((1, 2)))
  np.testing.assert_allclose(
    average_pool(IMAGES, 4)[:, 0, 0], IMAGES.mean((1, 2))
  )


def test_upsample_nearest_repeats_pixels():
  large = np.asarray(upsample_nearest(IMAGES, 3))
  for i, j in np.ndindex(12, 12):
    np.testing.assert_array_equal(large[:, i, j], IMAGES[:, i // 3, j // 3])
  np.testing.assert_allclose(
    average_pool(upsample_nearest(IMAGES, 3), 3), IMAGES, rtol=1e-6
  )


def test_factor_of_one_returns_the_same_array():
  assert average_pool(IMAGES, 1) is IMAGES
  assert upsample_nearest(IMAGES, 1) is IMAGES
