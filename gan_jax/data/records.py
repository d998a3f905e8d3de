"""Random access to the records of a prepared set, at hand or in a bucket."""

import hashlib
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from etils import epy
from jaxtyping import Int32

from gan_jax.data import cache
from gan_jax.data.cache import Cache
from gan_jax.data.source import Blocks, DataSpec, Fingerprint, Upcoming
from gan_jax.errors import UserError, suggest
from gan_jax.files import sha256_of

with epy.lazy_imports():  # TFDS takes a quarter of a second
  import tensorflow_datasets as tfds
  from array_record.python import array_record_module

# The number of records whose labels are read at once.
CHUNK = 4096
# The number of shards that a process keeps open.
OPEN_SHARDS = 256
# Of random access: nothing is read beyond a record.
READER_OPTIONS = 'readahead_buffer_size:0,max_parallelism:0'
READER_BUFFER_BYTES = 2**15


class Shard(NamedTuple):
  """The part of a file that belongs to a split.

  Attributes:
    name: The file.
    first, count: Its first record, and the number of records.
  """

  name: str
  first: int
  count: int


class Records:
  """The records of a split.

  Args:
    features: The TFDS features of a record.
    decoders: How TFDS decodes them; None: as the features say.
    folder: The local folder of the shards.
    shards: The shards of the split, in order.
    cached: Fetches the shards to `folder`; None: they are there.
  """

  def __init__(
    self,
    features: Any,
    decoders: Any,
    folder: Path,
    shards: Sequence[Shard],
    cached: Cache | None = None,
  ):
    self._args = features, decoders, folder, tuple(shards), cached
    self.features, self._decoders, self._folder, self.shards, _ = self._args
    self._cached = cached
    self._ends = np.cumsum([shard.count for shard in shards])
    self._readers: dict[Path, Any] = {}
    self._mutex = threading.Lock()

  def __reduce__(self):
    return Records, self._args  # each process opens the files itself

  def __len__(self) -> int:
    return int(self._ends[-1])

  def read(self, indices: np.ndarray) -> list[dict[str, Any]]:
    """Reads and decodes the records at `indices`."""
    decode = self.features.deserialize_example_np
    return [decode(raw, decoders=self._decoders) for raw in self.raw(indices)]

  def raw(self, indices: np.ndarray) -> list[bytes]:
    """Reads the records at `indices`, shard by shard."""
    opener = partial(
      array_record_module.ArrayRecordReader,
      options=READER_OPTIONS,
      file_reader_buffer_size=READER_BUFFER_BYTES,
    )
    found: list[bytes] = [b''] * len(indices)
    for number, rows, positions in self.by_shard(indices):
      read = self.opened(number, str, opener).read(positions.tolist())
      for row, record in zip(rows, read, strict=True):
        found[row] = record
    return found

  def by_shard(
    self, indices: np.ndarray
  ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yields the shards of `indices`: number, rows in `indices`, positions."""
    shards = np.searchsorted(self._ends, indices, side='right')
    for number in np.unique(shards):
      shard, rows = self.shards[number], np.flatnonzero(shards == number)
      start = self._ends[number] - shard.count - shard.first
      yield int(number), rows, indices[rows] - start

  def labels(self, name: str) -> Int32[np.ndarray, 'n ...']:
    """Reads the labels of all records without decoding the images."""
    label_only = tfds.features.FeaturesDict({name: self.features[name]})
    labels = []
    for first in range(0, len(self), CHUNK):
      rows = np.arange(first, min(first + CHUNK, len(self)))
      labels += [
        label_only.deserialize_example_np(record)[name]
        for record in self.raw(rows)
      ]
    return np.asarray(labels, np.int32)

  def fingerprint(self) -> Fingerprint:
    """Hashes the files of the records, and which records of them are used."""
    hash_of = lambda name: sha256_of(self._folder / name)
    if self._cached is not None:
      hash_of = self._cached.sha256
    lines = [
      f'{shard.name} {hash_of(shard.name)} {shard.first} {shard.count}\n'
      for shard in self.shards
    ]
    digest = hashlib.sha256(''.join(lines).encode()).hexdigest()
    return Fingerprint(digest, digest)

  def ahead(self, upcoming: Upcoming, name: Callable[[str], str] = str) -> None:
    """Announces the shards that are read next, if they must be fetched.

    `name` is that of `opened`.
    """
    if self._cached is not None:
      names = [name(self.shards[number].name) for number in upcoming.blocks]
      self._cached.ahead(upcoming.number, names)

  def blocks(self, spec: DataSpec) -> Blocks | None:
    """Returns how the order depends on the shards; None: it does not.

    Raises:
      UserError: The cache cannot hold the shards of two windows.
    """
    sizes = tuple(shard.count for shard in self.shards)
    if self._cached is None:
      return (
        Blocks(sizes, _window(sizes, spec)) if spec.shuffle_window else None
      )
    stored = sorted(self._cached.sizes[shard.name] for shard in self.shards)
    if spec.shuffle_window is None:
      fitting = max(1, self._cached.limit // (2 * stored[-1]))
      raise UserError(
        'config.data.cache_gb needs a window of images that are shuffled '
        'together: set --config.data.shuffle_window, for this cache to '
        f'{max(sizes) * min(fitting, len(sizes))} or less'
      )
    window = _window(sizes, spec)
    needed = sum(stored[-2 * window :])
    if needed > self._cached.limit:
      raise UserError(
        f'config.data.cache_gb is too small for two windows of '
        f'config.data.shuffle_window={spec.shuffle_window}, which are up to '
        f'{2 * window} shards: set it to {math.ceil(needed / 1e6) / 1e3:g} or '
        'more for each source, or the window to less'
      )
    return Blocks(sizes, window)

  def opened(
    self, number: int, name: Callable[[str], str], opener: Callable[[str], Any]
  ) -> Any:
    """Opens a file of a shard, unless it is open, and marks it as used.

    Args:
      number: The number of the shard.
      name: (name of the shard) -> the name of the file.
      opener: (path) -> the opened file.
    """
    file = self._folder / name(self.shards[number].name)
    with self._mutex:
      reader = self._readers.pop(file, None)
      if reader is not None and (self._cached is None or cache.touch(file)):
        self._readers[file] = reader  # now the last one
        return reader
    if self._cached is None:
      reader = opener(str(file))
    else:
      reader = self._cached.open(file.name, opener)
    with self._mutex:
      self._forget_removed()
      self._readers[file] = reader
    return reader

  def _forget_removed(self) -> None:
    """Closes files that are no longer in the cache, or too many."""
    # (They are closed when the last thread has read from them.)
    for file in list(self._readers):
      gone = self._cached is not None and not file.exists()
      if gone or len(self._readers) >= OPEN_SHARDS:
        del self._readers[file]


def open_records(
  builder: Any, split: str, decoders: Any = None, cached: Cache | None = None
) -> Records:
  """Opens a split of a data set that TFDS has prepared, for random access.

  Raises:
    UserError: The split does not exist, or is empty.
  """
  valid = builder.info.splits
  try:
    parts = valid[split].file_instructions
  except (KeyError, ValueError, NotImplementedError, AssertionError) as error:
    raise UserError(
      f'config.data.split={split!r} must be one of {", ".join(valid)}, all, a '
      'sum of them, or a slice of one, as in train[:90%]'
      f'{suggest(split, valid)}'
    ) from error
  shards = [
    Shard(Path(part.filename).name, part.skip, part.take)
    for part in parts
    if part.take
  ]
  if not shards:
    raise UserError(
      f'config.data.split={split!r} has no examples: choose a larger one'
    )
  folder = cached.folder if cached else Path(builder.data_path)
  return Records(builder.info.features, decoders, folder, shards, cached)


def _window(sizes: Sequence[int], spec: DataSpec) -> int:
  """Returns the number of blocks in a window, at least one."""
  return max(1, min(len(sizes), spec.shuffle_window // max(sizes)))
