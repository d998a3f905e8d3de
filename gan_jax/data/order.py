"""The stream of examples: position n is a pure function of (seed, source, n).

No iterator state exists: an iteration takes the next positions, and each
process takes a contiguous block of them.
"""

import functools
import zlib
from collections.abc import Mapping

import numpy as np

from gan_jax.data.source import Source


class Stream:
  """An endless stream of indices: in each epoch, all indices in a new order.

  Args:
    seed: The seed of the order.
    size: The size of the data set.
    attempt: The number of the attempt, for a run that was rolled back: each
      attempt has another order.
    name: The name of the source, if a game has several: each source has
      another order.
  """

  def __init__(self, seed: int, size: int, attempt: int = 0, name: str = ''):
    self.seed, self.size, self.attempt = seed, size, attempt
    self.name = name
    self._order = functools.lru_cache(maxsize=4)(self._shuffle)

  def __reduce__(self):
    # The cached orders are not pickled: they are computed again.
    return Stream, (self.seed, self.size, self.attempt, self.name)

  def _shuffle(self, epoch: int) -> np.ndarray:
    """Returns the indices in the order of an epoch."""
    # NumPy guarantees the raw stream of a bit generator for ever, but may
    # change the results of `permutation` in any release.
    counter = [0, 0, zlib.crc32(self.name.encode()), self.attempt]
    generator = np.random.Philox(key=[self.seed, epoch], counter=counter)
    raw = generator.random_raw(self.size)
    return np.argsort(raw, kind='stable').astype(np.int32)

  def indices(self, positions: np.ndarray) -> np.ndarray:
    """Maps int64 positions, of any shape, to int32 indices of examples."""
    epochs, offsets = np.divmod(positions, self.size)
    indices = np.empty(positions.shape, np.int32)
    for epoch in np.unique(epochs):
      is_in_epoch = epochs == epoch
      indices[is_in_epoch] = self._order(int(epoch))[offsets[is_in_epoch]]
    return indices


class JointStream:
  """The streams of several sources, which advance together.

  Args:
    streams: The streams by the names of their sources.
  """

  def __init__(self, streams: Mapping[str, Stream]):
    self._streams = dict(streams)

  def indices(self, positions: np.ndarray) -> dict[str, np.ndarray]:
    """Maps positions to indices of examples, by source."""
    return {
      name: stream.indices(positions) for name, stream in self._streams.items()
    }


def stream_of(
  source: Source, seed: int, attempt: int = 0
) -> Stream | JointStream:
  """Returns the stream of a source, or of the parts of a joined one."""
  if not source.parts:
    return Stream(seed, source.size, attempt)
  return JointStream(
    {
      name: Stream(seed, part.size, attempt, name)
      for name, part in source.parts.items()
    }
  )
