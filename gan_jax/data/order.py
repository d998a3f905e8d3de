"""The stream of examples: position n is a pure function of (seed, source, n).

No iterator state exists: an iteration takes the next positions, and each
process takes a contiguous block of them.
"""

import functools
import zlib
from collections.abc import Mapping

import numpy as np

from gan_jax.data.source import Blocks, Source, Upcoming

# The share of a window after which the next one is announced.
LAG = 1 / 8


class Stream:
  """An endless stream of indices: in each epoch, all indices in a new order.

  Without `blocks`, all orders are equally probable. With them, an epoch
  shuffles the blocks, and then the examples of each window of as many blocks
  as `blocks.window`: a window is read before the next one begins.

  Args:
    seed: The seed of the order.
    size: The size of the data set.
    attempt: The number of the attempt, for a run that was rolled back: each
      attempt has another order.
    name: The name of the source, if a game has several: each source has
      another order.
    blocks: How the examples are stored, if the order depends on it.
  """

  def __init__(
    self,
    seed: int,
    size: int,
    attempt: int = 0,
    name: str = '',
    blocks: Blocks | None = None,
  ):
    self.seed, self.size, self.attempt = seed, size, attempt
    self.name, self.blocks = name, blocks
    self._starts = np.cumsum((0, *(blocks.sizes if blocks else (size,))))
    self._order = functools.lru_cache(maxsize=4)(self._shuffle_window)
    self._windows = functools.lru_cache(maxsize=4)(self._shuffle_blocks)

  def __reduce__(self):
    # The cached orders are not pickled: they are computed again.
    args = self.seed, self.size, self.attempt, self.name, self.blocks
    return Stream, args

  def _permutation(self, size: int, epoch: int, lane: int) -> np.ndarray:
    """Returns a permutation; those of different lanes are independent."""
    # NumPy guarantees the raw stream of a bit generator for ever, but may
    # change the results of `permutation` in any release.
    counter = [0, lane, zlib.crc32(self.name.encode()), self.attempt]
    generator = np.random.Philox(key=[self.seed, epoch], counter=counter)
    return np.argsort(generator.random_raw(size), kind='stable')

  def _shuffle_blocks(
    self, epoch: int
  ) -> tuple[tuple[tuple[int, ...], ...], np.ndarray]:
    """Returns the blocks of each window, and the ends of the windows."""
    sizes = np.diff(self._starts)
    if self.blocks is None:
      return ((0,),), sizes
    order = self._permutation(len(sizes), epoch, 0)
    firsts = range(self.blocks.window, len(order), self.blocks.window)
    windows = np.split(order, firsts)
    ends = np.cumsum([sizes[window].sum() for window in windows])
    return tuple(tuple(window.tolist()) for window in windows), ends

  def _shuffle_window(self, epoch: int, window: int) -> np.ndarray:
    """Returns the indices in the order of a window of an epoch."""
    if self.blocks is None:
      return self._permutation(self.size, epoch, 0).astype(np.int32)
    starts = self._starts
    blocks = self._windows(epoch)[0][window]
    stored = [
      np.arange(starts[b], starts[b + 1], dtype=np.int32) for b in blocks
    ]
    stored = np.concatenate(stored)
    return stored[self._permutation(len(stored), epoch, 1 + window)]

  def indices(self, positions: np.ndarray) -> np.ndarray:
    """Maps int64 positions, of any shape, to int32 indices of examples."""
    epochs, offsets = np.divmod(positions, self.size)
    indices = np.empty(positions.shape, np.int32)
    for epoch in np.unique(epochs):
      ends = self._windows(int(epoch))[1]
      windows = np.searchsorted(ends, offsets, side='right')
      for window in np.unique(windows[epochs == epoch]):
        taken = (epochs == epoch) & (windows == window)
        start = ends[window - 1] if window else 0
        order = self._order(int(epoch), int(window))
        indices[taken] = order[offsets[taken] - start]
    return indices

  def upcoming(self, position: int) -> Upcoming:
    """Returns the blocks that are read from a position on.

    Those of the next window are only among them after a share of its own
    window: other processes may still read the one before.
    """
    epoch, offset = divmod(position, self.size)
    windows, ends = self._windows(epoch)
    window = int(np.searchsorted(ends, offset, side='right'))
    start = ends[window - 1] if window else 0
    is_early = offset - start < LAG * (ends[window] - start)
    number = 2 * (epoch * len(windows) + window)
    if is_early:
      return Upcoming(number, windows[window])
    later = window + 1 < len(windows)
    following = windows[window + 1] if later else self._windows(epoch + 1)[0][0]
    both = dict.fromkeys(windows[window] + following)
    return Upcoming(number + 1, tuple(both))


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

  def upcoming(self, position: int) -> dict[str, Upcoming]:
    """Returns the blocks that are read from a position on, by source."""
    return {
      name: stream.upcoming(position) for name, stream in self._streams.items()
    }


def stream_of(
  source: Source, seed: int, attempt: int = 0
) -> Stream | JointStream:
  """Returns the stream of a source, or of the parts of a joined one."""
  if not source.parts:
    return Stream(seed, source.size, attempt, blocks=source.blocks)
  return JointStream(
    {
      name: Stream(seed, part.size, attempt, name, part.blocks)
      for name, part in source.parts.items()
    }
  )
