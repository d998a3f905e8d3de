"""Random keys: a function of (seed, purpose, iteration, example).

Never of the device, of the process or of loop memory: so that one run is the
same run on any number of devices and after any number of restarts.
"""

import enum
import zlib

import flax.linen as nn
import jax
from jaxtyping import Array, Int, Key


class Purpose(enum.IntEnum):
  """What a key is drawn for: no two purposes ever share one."""

  INIT = 0
  READ = 1  # augmenting the reals
  INPUTS = 2  # latents, and what else G is fed
  DISC = 3  # inside D's loss
  GEN = 4  # inside G's loss
  SAMPLE = 5  # sample grids, and notebooks
  ATTEMPT = 6  # all of a run that was rolled back
  EVALUATE = 7  # samples that are measured
  REFERENCE = 8  # points of a toy that they are measured against
  LABELS = 9  # labels of samples that are measured


def example_keys(
  key: Key[Array, ''],
  purpose: Purpose,
  examples: Int[Array, ' n'],
  step: Int[Array, ''] | int = 0,
) -> Key[Array, ' n']:
  """One key for each example: fold_in(seed, purpose, iteration, example)."""
  key = jax.random.fold_in(jax.random.fold_in(key, purpose), step)
  return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, examples)


def layer_keys(module: nn.Module, keys: Key[Array, ' n']) -> Key[Array, ' n']:
  """The examples' keys for one layer: two layers never share their noise.

  A layer that is called twice in one pass draws the same noise twice.
  """
  salt = zlib.crc32('/'.join(module.path).encode())
  return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, salt)
