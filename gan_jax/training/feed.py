"""What each iteration takes of the stream of examples."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gan_jax.data.order import Stream
from gan_jax.data.source import Source
from gan_jax.pair import Pair
from gan_jax.training.schedule import Table

IndexBatch = dict[str, Any]


def feed(
  stream: Stream | None,
  source: Source | None,
  table: Table,
  rows: Callable[[int], slice],
  step: int,
) -> Pair[IndexBatch | None]:
  """What the dispatch that begins at `step` takes from the stream.

  Args:
    stream: The order of the data; None: it has none, the devices draw it.
    source: Where to fetch the examples; None: they lie on the device, and
      their indices are enough.
    table: The schedule.
    rows: Batch size -> the rows that are this process's.
    iteration: The dispatch's first.

  Returns:
    disc: leaves [iterations, disc_steps, n, ...]; gen: leaves [iterations, n',
      ...], or None where G moves on D's batch. D's steps take the next
      positions; G's own batch has the same positions again, in turn. `example`
      numbers the
    examples of an iteration: with the seed and the iteration it makes their
      keys.
  """
  segment = table.row(step).segment
  steps, disc_steps = table.steps_per_dispatch, segment.disc_steps
  per_step = segment.images_per_step
  first = table.images(step) + per_step * np.arange(steps, dtype=np.int64)

  def take(first: np.ndarray, examples: np.ndarray) -> IndexBatch:
    positions = first + examples % per_step
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

  examples = np.arange(per_step).reshape(disc_steps, -1)
  examples = examples[:, rows(segment.batch_size)]
  disc = take(first[:, None, None], examples)
  if segment.gen_batch_size is None:
    return Pair(gen=None, disc=disc)
  examples = per_step + np.arange(segment.gen_batch_size)
  gen = take(first[:, None], examples[rows(segment.gen_batch_size)])
  return Pair(gen=gen, disc=disc)
