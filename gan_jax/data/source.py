"""What a source of images is: random access, and nothing else."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int32, Key

from gan_jax.errors import UserError

# {'images': uint8 [n, h, w, c], or float where they are drawn from a
# distribution; 'labels': int32, where there are any}
Examples = dict[str, np.ndarray]


class Fingerprint(NamedTuple):
  """What tells one set of images from another.

  Attributes:
    content: A digest of the whole set, the same on every machine.
    here: A digest that also changes when a file of this machine is touched.
  """

  content: str
  here: str


class Source(NamedTuple):
  """A set of examples, to be asked for by index.

  Attributes:
    size: How many there are.
    fetch: (indices [n]) -> the examples, in that order. Goes to other
      processes, so that it can be pickled (but where examples are drawn).
    example_bytes: What one takes up.
    classes: Names of the labels; empty where there are none. Labels are
      int32: [n], the number of the class, or [n, classes], 1 for each
      attribute that the image has.
    decodes: Whether to fetch is to decode, which is work for many processes.
    draw: (key) -> an example's image [h, w, c], float: the iterations are fed
      with new ones, drawn on the devices, and what is fetched stands for them
      where they are measured. None: they are fed with what is fetched.
    labels: () -> the labels of all examples, without decoding an image. None:
      there are none, or only `fetch` has them.
    fingerprint: () -> the set's, without decoding an image. None: a digest of
      everything that is fetched tells the set from others.
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
  """What `config.data` asks a source for.

  Attributes:
    path: What stands after the colon in `data.source`.
    resolution, channels, crop: What is made of each picture (standard.py).
    split: Which part of the set, as TFDS writes it: train, test, train+test,
      train[:90%], all.
    dir: Where prepared sets are; None: where TFDS has them.
    files: Where the user has the official files; None: they are downloaded.
    max_device_bytes: A set larger than this is streamed.
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
    return self.resolution**2 * self.channels


def in_memory(examples: Examples, classes: tuple[str, ...] = ()) -> Source:
  """The source of arrays that are there already."""
  size = len(examples['images'])
  return Source(
    size=size,
    fetch=lambda indices: {k: v[indices] for k, v in examples.items()},
    example_bytes=sum(array.nbytes for array in examples.values()) // size,
    classes=classes,
    labels=(lambda: examples['labels']) if 'labels' in examples else None,
  )


def check_no_splits(name: str, wanted: DataSpec) -> None:
  """Refuses a split of a set that has none."""
  if wanted.split not in ('all', 'train'):
    raise UserError(
      f'{name} is not divided: config.data.split is all, not {wanted.split!r}'
    )
