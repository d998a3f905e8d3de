"""What a source of images is: random access, and nothing else."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# {'images': uint8 [n, h, w, c], 'labels': int32 [n], where there are any}
Examples = dict[str, np.ndarray]


class Source(NamedTuple):
  """A set of examples, to be asked for by index.

  Attributes:
    size: How many there are.
    fetch: (indices [n]) -> the examples, in that order.
    example_bytes: What one takes up.
    classes: Names of the labels; empty where there are none.
  """

  size: int
  fetch: Callable[[np.ndarray], Examples]
  example_bytes: int
  classes: tuple[str, ...] = ()


def in_memory(examples: Examples, classes: tuple[str, ...] = ()) -> Source:
  """The source of arrays that are there already."""
  size = len(examples['images'])
  return Source(
    size=size,
    fetch=lambda indices: {k: v[indices] for k, v in examples.items()},
    example_bytes=sum(array.nbytes for array in examples.values()) // size,
    classes=classes,
  )
