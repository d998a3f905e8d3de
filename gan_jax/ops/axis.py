"""Collectives over the device axis.

`axis_name` is the name of the axis under pmap. It is None under jit, where
every array is global and the functions return their argument.
"""

import jax
from jaxtyping import PyTree


def mean(tree: PyTree, axis_name: str | None) -> PyTree:
  """Returns the mean over devices of every array in `tree`."""
  return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def gather(tree: PyTree, axis_name: str | None) -> PyTree:
  """Gathers the rows of all devices: [n, ...] -> [devices * n, ...]."""
  if axis_name is None:
    return tree
  return jax.lax.all_gather(tree, axis_name, tiled=True)
