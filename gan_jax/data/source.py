"""The interface of a data source: random access to examples."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Int32, Key

from gan_jax.errors import UserError

if TYPE_CHECKING:
  from gan_jax.data.toys import Toy

# 'images': uint8 [n, h, w, c], or float if drawn from a distribution; and
# 'labels': int32, if the source has labels. A source of pairs has two entries
# of images, 'a' and 'b'.
Examples = dict[str, np.ndarray]


class Fingerprint(NamedTuple):
  """Digests that identify a set of images.

  Attributes:
    content: A digest of the whole set, the same on every machine.
    here: A digest that also changes when a local file is touched.
  """

  content: str
  here: str


class Blocks(NamedTuple):
  """Runs of consecutive examples that are stored, and read, together.

  Attributes:
    sizes: The numbers of examples of the blocks, in the order of the examples.
    window: The number of blocks whose examples are shuffled together.
  """

  sizes: tuple[int, ...]
  window: int


class Upcoming(NamedTuple):
  """The blocks that a stream reads next.

  Attributes:
    number: It grows along the stream, and is the same for the same blocks.
    blocks: The numbers of the blocks.
  """

  number: int
  blocks: tuple[int, ...]


class Source(NamedTuple):
  """A set of examples with random access.

  Attributes:
    size: The number of examples.
    fetch: (indices [n]) -> the examples, in that order. Unless the examples are
      drawn, it must be picklable, because worker processes receive it.
    example_bytes: The size of one example.
    classes: The names of the labels; empty: no labels. Labels are int32: [n],
      the number of the class; or [n, classes], a 0 or 1 for each attribute.
    decodes: Whether `fetch` decodes images, which is worth many processes.
    draw: (key) -> an image [h, w, c], float, or images by name: every iteration
      draws new examples on the devices, and the fetched ones are the reference
      for metrics. None: training uses the fetched examples.
    toy: The distribution of its points, for plots and metrics; None: its
      examples are images.
    parts: Several sources by name, each with its own size and order; `fetch`
      takes indices by name. Empty: this is one source.
    labels: () -> the labels of all examples, without decoding images. None: no
      labels, or only `fetch` returns them.
    fingerprint: () -> the fingerprint of the set, without decoding images.
      None: the evaluator hashes all fetched images instead.
    blocks: How the examples are stored, on which their order in training
      depends. None: it does not depend on it.
    ahead: (Upcoming, factor) -> None: announces the blocks that are read next,
      at a factor of `fetch_sums` or 1, so that they are fetched in time; of a
      joined source, by name. None: the examples are at hand, and may be read in
      any order.
    fetch_sums: (indices, factor) -> the examples, with sums over squares of
      factor x factor pixels as uint16 or uint32 in place of the images. None:
      only whole images are stored.
  """

  size: int
  fetch: Callable[[np.ndarray], Examples]
  example_bytes: int
  classes: tuple[str, ...] = ()
  decodes: bool = False
  draw: Callable[[Key[Array, '']], Any] | None = None
  toy: Toy | None = None
  parts: Mapping[str, Source] = {}
  labels: Callable[[], Int32[np.ndarray, 'n ...']] | None = None
  fingerprint: Callable[[], Fingerprint] | None = None
  blocks: Blocks | None = None
  ahead: Callable[[Any, int], None] | None = None
  fetch_sums: Callable[[np.ndarray, int], Examples] | None = None


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
    shuffle_window: The number of images that are shuffled together; None: all.
    pyramid: Whether the prepared set has smaller copies of the images.
    cache_bytes: The limit of the local cache of a set whose shards are fetched
      as they are needed; None: the set is copied to the local disk.
  """

  path: str
  resolution: int
  channels: int
  crop: int | None = None
  split: str = 'all'
  dir: str | None = None
  files: str | None = None
  max_device_bytes: int = 2**31
  shuffle_window: int | None = None
  cache_bytes: int | None = None
  pyramid: bool = False

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


def joined(parts: Mapping[str, Source]) -> Source:
  """Joins several sources: each has an entry of images of its own name.

  The other entries of a source are prefixed, as in `a_labels`. An epoch is that
  of the largest source. `fetch` takes indices by name, or the same indices for
  all sources, modulo their sizes.

  Raises:
    UserError: Only some of the sources are drawn on the devices.
  """
  drawn = {name for name, part in parts.items() if part.draw is not None}
  if drawn and drawn != parts.keys():
    one, other = min(drawn), min(parts.keys() - drawn)
    raise UserError(
      f'config.data.{one} is drawn on the devices, but config.data.{other} has '
      'stored images: choose two sources of the same kind'
    )
  fetched_ahead = any(part.ahead is not None for part in parts.values())
  return Source(
    size=max(part.size for part in parts.values()),
    fetch=partial(_fetch_parts, dict(parts)),
    example_bytes=sum(part.example_bytes for part in parts.values()),
    decodes=any(part.decodes for part in parts.values()),
    draw=partial(_draw_parts, dict(parts)) if drawn else None,
    parts=dict(parts),
    ahead=partial(_announce_parts, dict(parts)) if fetched_ahead else None,
  )


def _announce_parts(
  parts: Mapping[str, Source], upcoming: Mapping[str, Upcoming], factor: int
) -> None:
  for name, part in parts.items():
    if part.ahead is not None:
      part.ahead(upcoming[name], factor)


def _fetch_parts(
  parts: Mapping[str, Source], indices: Mapping[str, np.ndarray] | np.ndarray
) -> Examples:
  if not isinstance(indices, Mapping):
    indices = {name: indices % part.size for name, part in parts.items()}
  examples = {}
  for name, part in parts.items():
    examples.update(prefixed(name, part.fetch(indices[name])))
  return examples


def _draw_parts(
  parts: Mapping[str, Source], key: Key[Array, '']
) -> dict[str, Array]:
  return {name: part.draw(part_key(name, key)) for name, part in parts.items()}


def part_key(name: str, key: Key[Array, '']) -> Key[Array, '']:
  """Returns the key of an example for one of several sources."""
  return jax.random.fold_in(key, zlib.crc32(name.encode()))


def prefixed(name: str, examples: Mapping[str, Any]) -> dict[str, Any]:
  """Names the entries of a part: `images` by its name, labels `NAME_labels`."""
  return {
    name if entry == 'images' else f'{name}_{entry}': array
    for entry, array in examples.items()
  }


def entry_source(source: Source, entry: str) -> Source:
  """Returns a source of one entry of images: a part, or half of the pairs."""
  if entry in source.parts:
    return source.parts[entry]
  if entry == 'images':
    return source
  return Source(
    size=source.size,
    fetch=partial(_fetch_entry, source, entry),
    example_bytes=source.example_bytes,
    decodes=source.decodes,
  )


def _fetch_entry(source: Source, entry: str, indices: np.ndarray) -> Examples:
  return {'images': source.fetch(indices)[entry]}


def check_no_splits(name: str, spec: DataSpec) -> None:
  """Raises a UserError if a split of an undivided set is requested."""
  if spec.split not in ('all', 'train'):
    raise UserError(
      f'{name} has no splits: set config.data.split=all, not {spec.split!r}'
    )
