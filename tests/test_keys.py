"""Tests that randomness depends only on (seed, purpose, iteration, example)."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.keys import Purpose, example_keys
from gan_jax.models.layers import Dropout


def bits(keys):
  return [tuple(k) for k in np.asarray(jax.random.key_data(keys)).tolist()]


def test_keys_differ_by_seed_purpose_iteration_and_example():
  all_keys = []
  for seed, purpose, step in itertools.product(range(2), Purpose, range(3)):
    key = jax.random.key(seed)
    all_keys += bits(example_keys(key, purpose, jnp.arange(4), step))
  assert len(set(all_keys)) == len(all_keys)


def test_key_depends_only_on_its_example():
  """The keys of a device do not depend on the other devices."""
  key = jax.random.key(0)
  all_keys = bits(example_keys(key, Purpose.INPUTS, jnp.arange(8), 5))
  part = bits(example_keys(key, Purpose.INPUTS, jnp.arange(4, 8), 5))
  assert all_keys[4:] == part


class _TwoDropouts(nn.Module):
  @nn.compact
  def __call__(self, x, keys):
    return Dropout(0.5)(x, keys, True), Dropout(0.5)(x, keys, True)


def test_dropout_masks_differ_by_layer_and_example():
  keys = jax.random.split(jax.random.key(0), 3)
  x = jnp.ones((3, 64))
  a, b = _TwoDropouts().apply({}, x, keys)
  masks = [tuple(row.tolist()) for row in np.concatenate([a, b])]
  assert len(set(masks)) == 6
  assert set(np.unique(a)) == {0.0, 2.0}  # kept units are divided by 1/2
  single, _ = _TwoDropouts().apply({}, x[1:2], keys[1:2])
  np.testing.assert_array_equal(single[0], a[1])
