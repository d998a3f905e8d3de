"""The stream of examples: position n is a pure function of (seed, n).

There is no iterator and nothing to save: a round takes the next positions, and
each process a contiguous block of them.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from gan_jax.data.source import Source
from gan_jax.keys import Purpose, example_keys
from gan_jax.ops.resample import box
from gan_jax.schedule import Table
from gan_jax.state import Pair

Feed = dict[str, Any]


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


def feed(
  stream: Stream | None,
  source: Source | None,
  table: Table,
  rows: Callable[[int], slice],
  round: int,
) -> Pair[Feed | None]:
  """What the dispatch that begins at `round` takes from the stream.

  Args:
    stream: The order of the data; None: it has none, the devices draw it.
    source: Where to fetch the examples; None: they lie on the device, and
      their indices are enough.
    table: The schedule.
    rows: Batch size -> the rows that are this process's.
    round: The dispatch's first.

  Returns:
    disc: leaves [rounds, disc_steps, n, ...]; gen: leaves [rounds, n', ...],
    or None where G moves on D's batch. D's steps take the next positions; G's
    own batch has the same positions again, in turn. `example` numbers the
    examples of a round: with the seed and the round it makes their keys.
  """
  span = table.row(round).span
  rounds, steps = table.rounds_per_dispatch, span.disc_steps
  per_round = span.images_per_round
  first = table.images(round) + per_round * np.arange(rounds, dtype=np.int64)

  def take(first: np.ndarray, examples: np.ndarray) -> Feed:
    positions = first + examples % per_round
    shape = positions.shape
    taken = {'example': np.broadcast_to(examples.astype(np.int32), shape)}
    if stream is None:
      return taken
    indices = stream.indices(positions)
    if source is None:
      return {**taken, 'index': indices}
    fetched = source.fetch(indices.ravel())
    fetched = {k: v.reshape(*shape, *v.shape[1:]) for k, v in fetched.items()}
    return {**taken, **fetched}

  examples = np.arange(per_round).reshape(steps, -1)
  examples = examples[:, rows(span.batch_size)]
  disc = take(first[:, None, None], examples)
  if span.gen_batch_size is None:
    return Pair(gen=None, disc=disc)
  examples = per_round + np.arange(span.gen_batch_size)
  gen = take(first[:, None], examples[rows(span.gen_batch_size)])
  return Pair(gen=gen, disc=disc)


def read(
  dataset: dict[str, Array],
  fed: Feed,
  key: Key[Array, ''],
  round: Int[Array, ''],
  shrink: int = 1,
  *,
  flip: bool,
  draw: Callable[[Key[Array, '']], Array] | None = None,
) -> Feed:
  """Makes the fed examples into a batch, on the device.

  Gathers them where they lie there already, or draws them, with `draw`; makes
  every uint8 image float in [-1, 1], `shrink` times smaller by a box filter,
  and, with `flip`, mirrors each example with probability 1/2.
  """
  batch = dict(fed)
  if 'index' in batch:
    index = batch.pop('index')
    batch.update({name: array[index] for name, array in dataset.items()})
  examples = batch['example']
  keys = example_keys(key, Purpose.READ, examples.reshape(-1), round)
  if draw is not None:
    images = jax.vmap(draw)(keys)
    batch['images'] = images.reshape(*examples.shape, *images.shape[1:])
  mirrored = jax.vmap(jax.random.bernoulli)(keys).reshape(examples.shape)

  def convert(images: Array) -> Array:
    images = box(images, shrink).astype(jnp.float32) / 127.5 - 1
    if not flip:
      return images
    turned = jnp.flip(images, -2)
    return jnp.where(mirrored[..., None, None, None], turned, images)

  return {
    name: convert(array) if array.dtype == jnp.uint8 else array
    for name, array in batch.items()
  }
