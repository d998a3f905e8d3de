"""The stream of examples: position n is a pure function of (seed, n).

There is no iterator and nothing to save: an iteration takes the next positions,
  and each process a contiguous block of them.
"""

import functools

import numpy as np


class Stream:
  """An endless stream of the indices of a data set: a shuffled pass an epoch.

  Args:
    seed: Of the order.
    size: Of the data set.
    attempt: Another order for each attempt of a run that was rolled back.
  """

  def __init__(self, seed: int, size: int, attempt: int = 0):
    self.seed, self.size, self.attempt = seed, size, attempt
    self._order = functools.lru_cache(maxsize=4)(self._shuffle)

  def __reduce__(self):
    # Pickled without its orders, which are made anew.
    return Stream, (self.seed, self.size, self.attempt)

  def _shuffle(self, epoch: int) -> np.ndarray:
    # NumPy promises the raw stream of a bit generator for ever, and that of
    # `permutation` only until somebody makes it faster.
    counter = [0, 0, 0, self.attempt]
    generator = np.random.Philox(key=[self.seed, epoch], counter=counter)
    raw = generator.random_raw(self.size)
    return np.argsort(raw, kind='stable').astype(np.int32)

  def indices(self, positions: np.ndarray) -> np.ndarray:
    """int64 positions, of any shape -> int32 indices into the data set."""
    epochs, offsets = np.divmod(positions, self.size)
    indices = np.empty(positions.shape, np.int32)
    for epoch in np.unique(epochs):
      here = epochs == epoch
      indices[here] = self._order(int(epoch))[offsets[here]]
    return indices
