"""Optimizers, by hand."""

import jax.numpy as jnp
import pytest

from gan_jax.training.optimizers import rmsprop


@pytest.mark.parametrize('gradient', [1.0, 1e-6])
def test_rmsprop_of_small_gradients(gradient):
  """v = g^2 / 100 after a step: g / (|g| / 10 + 1e-8)."""
  tx = rmsprop()
  params = jnp.zeros(())
  update, _ = tx.update(jnp.float32(gradient), tx.init(params), params)
  expected = gradient / (gradient / 10 + 1e-8)
  assert float(update) == pytest.approx(expected, rel=1e-4)
