"""What the conversions of published weights share."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from gan_jax.ops.fir import TAPS
from gan_jax.pair import Pair, Variables

# The arrays of a `state_dict`, by name.
Arrays = Mapping[str, np.ndarray]


class ReferenceWeights(NamedTuple):
  """A converted network.

  Attributes:
    player: 'gen' or 'disc'.
    variables: Its Flax variables.
    block: What the shapes say of `config.model.PLAYER`.
    resolution, channels, classes: Of the images.
    latent_dim: Dimension of z; D: None.
  """

  player: str
  variables: Variables
  block: dict[str, Any]
  resolution: int
  channels: int
  classes: int
  latent_dim: int | None


def shape_mismatch(
  found: ReferenceWeights, networks: Pair[type[nn.Module]]
) -> str | None:
  """Describes the first variable that the network has in another shape.

  Args:
    found: The weights.
    networks: The modules of both players.

  Returns:
    None if the network has exactly these variables.
  """
  block = {k: v for k, v in found.block.items() if k != 'name'}
  network = getattr(networks, found.player)(
    resolution=found.resolution, channels=found.channels, **block
  )
  size = found.resolution
  shape = (found.latent_dim,)
  if found.player == 'disc':
    shape = size, size, found.channels
  labels = jnp.zeros((1, found.classes)) if found.classes else None
  key = jax.random.key(0)
  expected = jax.eval_shape(
    lambda: network.init(key, jnp.zeros((1, *shape)), key[None], False, labels)
  )
  ours, theirs = _shapes(expected), _shapes(found.variables)
  for name in sorted(ours.keys() | theirs.keys()):
    if ours.get(name) != theirs.get(name):
      return f'{name} has shape {theirs.get(name)}, expected {ours.get(name)}'
  return None


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
  return {
    jax.tree_util.keystr(path): array.shape
    for path, array in jax.tree_util.tree_leaves_with_path(tree)
  }


def is_low_pass(array: np.ndarray) -> bool:
  """Whether an array is the resampling filter of ops/fir.py."""
  taps = np.asarray(TAPS) / sum(TAPS)
  square = np.outer(taps, taps)
  return np.shape(array) == square.shape and np.allclose(array, square)
