"""Reductions over the devices' axis, where there is one.

`axis_name` is None in the global-view (jit) program, in which every array is
whole already, and the axis's name under pmap.
"""

import jax
from jaxtyping import PyTree


def mean(tree: PyTree, axis_name: str | None) -> PyTree:
  """The mean over devices of every array of `tree`."""
  return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def gather(tree: PyTree, axis_name: str | None) -> PyTree:
  """The rows of all devices, in order: [n, ...] -> [devices * n, ...]."""
  if axis_name is None:
    return tree
  return jax.lax.all_gather(tree, axis_name, tiled=True)
