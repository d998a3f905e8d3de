"""Tests of the optimizers against hand computations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.training.optimizers import adam, rmsprop


@pytest.mark.parametrize('gradient', [1.0, 1e-6])
def test_rmsprop_of_small_gradients_by_hand(gradient):
  """v = g^2 / 100 after a step: g / (|g| / 10 + 1e-8)."""
  tx = rmsprop()
  params = jnp.zeros(())
  update, _ = tx.update(jnp.float32(gradient), tx.init(params), params)
  expected = gradient / (gradient / 10 + 1e-8)
  assert float(update) == pytest.approx(expected, rel=1e-4)


def adam_by_hand(grads, b1, b2, eps=1e-8, rate=1.0):
  """Algorithm 1 of Kingma & Ba 2015, with b1 and b2 of each step."""
  m = v = 0.0
  for step, (g, c1, c2) in enumerate(zip(grads, b1, b2, strict=True), 1):
    m, v = c1 * m + (1 - c1) * g, c2 * v + (1 - c2) * g**2
    yield rate * (m / (1 - c1**step)) / (np.sqrt(v / (1 - c2**step)) + eps)


def steps_of(tx, grads, hyperparameters):
  with jax.enable_x64(True):
    params = jnp.zeros(())
    state = tx.init(params)
    for g, values in zip(grads, hyperparameters, strict=True):
      step, state = tx.update(jnp.float64(g), state, params, **values)
      yield float(step)


def test_adam_corrects_rate_and_betas_for_lazy_penalties():
  """c = 16/17: rate c, and b1, b2 to the power c (StyleGAN2, appendix B)."""
  grads, c = [0.5, -2.0, 3.0], 16 / 17
  tx = adam(b1=0.5, b2=0.99, lazy_interval=16)
  expected = adam_by_hand(grads, [0.5**c] * 3, [0.99**c] * 3, rate=c)
  found = [*steps_of(tx, grads, [{}] * 3)]
  np.testing.assert_allclose(found, [*expected], rtol=1e-6)


def test_adam_with_scheduled_betas_by_hand():
  grads, b1, b2 = [0.5, -2.0, 3.0], [0.0, 0.2, 0.4], [0.9, 0.95, 0.99]
  values = [{'b1': x, 'b2': y} for x, y in zip(b1, b2, strict=True)]
  found = [*steps_of(adam(), grads, values)]
  np.testing.assert_allclose(found, [*adam_by_hand(grads, b1, b2)], rtol=1e-6)
