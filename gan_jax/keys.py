"""Random keys: a pure function of (seed, purpose, iteration, example).

Keys depend neither on devices and processes nor on loop state. A run is
therefore the same on any number of devices and after any number of restarts.
"""

import enum
import zlib

import flax.linen as nn
import jax
from jaxtyping import Array, Int, Key


class Purpose(enum.IntEnum):
  """The use of a key. Two purposes never share a key."""

  INIT = 0
  READ = 1  # preprocessing of reals, such as mirroring
  INPUTS = 2  # inputs of G, such as latents
  DISC = 3  # D's updates
  GEN = 4  # G's updates
  SAMPLE = 5  # sample grids and notebooks
  ATTEMPT = 6  # all keys of a run after a rollback
  EVALUATE = 7  # samples for metrics
  REFERENCE = 8  # real points of a toy for metrics
  LABELS = 9  # labels of samples for metrics
  STANDING = 10  # samples for standing statistics


def example_keys(
  key: Key[Array, ''],
  purpose: Purpose,
  examples: Int[Array, ' n'],
  step: Int[Array, ''] | int = 0,
) -> Key[Array, ' n']:
  """Returns a key for each example: fold_in(seed, purpose, step, example)."""
  key = jax.random.fold_in(jax.random.fold_in(key, purpose), step)
  return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, examples)


def layer_keys(module: nn.Module, keys: Key[Array, ' n']) -> Key[Array, ' n']:
  """Returns the examples' keys for one layer; two layers never share a key.

  A layer that is called twice in a forward pass draws the same noise twice.
  """
  salt = zlib.crc32('/'.join(module.path).encode())
  return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, salt)
