"""Randomness is a function of (seed, purpose, iteration, example)."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.keys import Purpose, example_keys
from gan_jax.models.layers import Dropout


def bits(keys):
  return [tuple(k) for k in np.asarray(jax.random.key_data(keys)).tolist()]


def test_no_two_purposes_rounds_or_examples_share_a_key():
  seen = []
  for seed, purpose, step in itertools.product(range(2), Purpose, range(3)):
    key = jax.random.key(seed)
    seen += bits(example_keys(key, purpose, jnp.arange(4), step))
  assert len(set(seen)) == len(seen)


def test_a_key_depends_on_its_own_example_alone():
  """The share of a device is the same whatever the other devices have."""
  key = jax.random.key(0)
  whole = bits(example_keys(key, Purpose.INPUTS, jnp.arange(8), 5))
  part = bits(example_keys(key, Purpose.INPUTS, jnp.arange(4, 8), 5))
  assert whole[4:] == part


class _TwoNoises(nn.Module):
  @nn.compact
  def __call__(self, x, keys):
    return Dropout(0.5)(x, keys, True), Dropout(0.5)(x, keys, True)


def test_layers_and_examples_have_masks_of_their_own():
  keys = jax.random.split(jax.random.key(0), 3)
  x = jnp.ones((3, 64))
  a, b = _TwoNoises().apply({}, x, keys)
  masks = [tuple(row.tolist()) for row in np.concatenate([a, b])]
  assert len(set(masks)) == 6
  assert set(np.unique(a)) == {0.0, 2.0}  # kept units are divided by 1/2
  alone, _ = _TwoNoises().apply({}, x[1:2], keys[1:2])
  np.testing.assert_array_equal(alone[0], a[1])
