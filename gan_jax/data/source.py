"""The interface of a data source: random access to examples."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int32, Key

from gan_jax.errors import UserError

# 'images': uint8 [n, h, w, c], or float if drawn from a distribution; or, of a
# paired source, 'a' and 'b'; and 'labels': int32, if the source has labels.
Examples = dict[str, np.ndarray]


class Fingerprint(NamedTuple):
  """Digests that identify a set of images.

  Attributes:
    content: A digest of the whole set, the same on every machine.
    here: A digest that also changes when a local file is touched.
  """

  content: str
  here: str


class Source(NamedTuple):
  """A set of examples with random access.

  Attributes:
    size: The number of examples.
    fetch: (indices [n]) -> the examples, in that order. Must be picklable,
      because worker processes receive it, unless the examples are drawn.
    example_bytes: The size of one example.
    classes: The names of the labels; empty: no labels. Labels are int32: [n],
      the number of the class; or [n, classes], a 0 or 1 for each attribute.
    decodes: Whether `fetch` decodes images, which is worth many processes.
    draw: (key) -> an image [h, w, c], float: every iteration draws new examples
      on the devices, and the fetched ones are the reference for metrics. None:
      training uses the fetched examples.
    labels: () -> the labels of all examples, without decoding images. None: no
      labels, or only `fetch` returns them.
    fingerprint: () -> the fingerprint of the set, without decoding images.
      None: the evaluator hashes all fetched images instead.
  """

  size: int
  fetch: Callable[[np.ndarray], Examples]
  example_bytes: int
  classes: tuple[str, ...] = ()
  decodes: bool = False
  draw: Callable[[Key[Array, '']], Float[Array, 'h w c']] | None = None
  labels: Callable[[], Int32[np.ndarray, 'n ...']] | None = None
  fingerprint: Callable[[], Fingerprint] | None = None


class DataSpec(NamedTuple):
  """The settings of `config.data` for a source.

  Attributes:
    path: The part of `data.source` after the colon.
    resolution, channels, crop: The settings of `preprocess.preprocess`.
    split: The part of the set, in the notation of TFDS: train, test,
      train+test, train[:90%], all.
    dir: The folder of prepared sets; None: the default folder of TFDS.
    files: The folder of the official files; None: they are downloaded.
    max_device_bytes: Larger sets are streamed.
  """

  path: str
  resolution: int
  channels: int
  crop: int | None = None
  split: str = 'all'
  dir: str | None = None
  files: str | None = None
  max_device_bytes: int = 2**31

  @property
  def image_bytes(self) -> int:
    """The size of an image in bytes."""
    return self.resolution**2 * self.channels


def in_memory(examples: Examples, classes: tuple[str, ...] = ()) -> Source:
  """Makes a source of arrays in memory."""
  size = len(next(iter(examples.values())))
  return Source(
    size=size,
    fetch=partial(_take, examples),
    example_bytes=sum(array.nbytes for array in examples.values()) // size,
    classes=classes,
    labels=partial(examples.get, 'labels') if 'labels' in examples else None,
  )


def _take(examples: Examples, indices: np.ndarray) -> Examples:
  """Takes examples by index. (Unlike a lambda, it can be pickled.)"""
  return {name: array[indices] for name, array in examples.items()}


def check_no_splits(name: str, spec: DataSpec) -> None:
  """Raises a UserError if a split of an undivided set is requested."""
  if spec.split not in ('all', 'train'):
    raise UserError(
      f'{name} has no splits: set config.data.split=all, not {spec.split!r}'
    )
