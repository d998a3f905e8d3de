"""Index batches: the examples of each iteration, as positions in the stream.

An iteration takes the next positions of the stream, each process a contiguous
block of them. A data set on the devices is gathered there by index. Examples of
a larger one are fetched by loader processes and sent to the devices.
"""

import os
from collections.abc import Callable, Generator, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict

from gan_jax import devices, games
from gan_jax.data.loader import load
from gan_jax.data.order import JointStream, Stream, stream_of
from gan_jax.data.source import Source
from gan_jax.pair import Pair
from gan_jax.training.schedule import Schedule

IndexBatch = dict[str, Any]
Fetch = Callable[..., dict[str, np.ndarray]]

# Upper limit of the loader processes if `config.data.workers` is None.
MAX_WORKERS = 16


def is_resident(config: ConfigDict, source: Source) -> bool:
  """Returns whether the whole data set is kept on the devices."""
  if source.draw is not None:
    return False
  parts = source.parts.values() or (source,)
  total = sum(part.size * part.example_bytes for part in parts)
  return total <= config.data.max_device_bytes


def index_batches(
  config: ConfigDict,
  source: Source,
  schedule: Schedule,
  step: int,
  attempt: int,
) -> Generator[Pair[IndexBatch | None]]:
  """Yields index batches, one per dispatch from `step`; see `index_batch`."""
  make = index_batch_maker(config, source, schedule, attempt)
  steps = range(step, schedule.total_steps, schedule.steps_per_dispatch)
  if source.draw is not None or is_resident(config, source):
    return (make(first) for first in steps)
  workers = config.data.workers
  if workers is None:
    cores = min(os.cpu_count() or 1, MAX_WORKERS)
    workers = cores if source.decodes else 0
  return load(make, steps, workers)


def index_batch_maker(
  config: ConfigDict, source: Source, schedule: Schedule, attempt: int = 0
) -> Callable[[int], Pair[IndexBatch | None]]:
  """Makes a function (first step of a dispatch) -> its index batches."""
  stream = None
  if source.draw is None:
    stream = stream_of(source, config.seed, attempt)
  fetched_from = None if is_resident(config, source) else source
  rows = devices.process_rows()
  factors = {}
  if fetched_from is not None and source.fetch_sums is not None:
    factors = _factors(config, schedule)
  return partial(
    index_batch, stream, fetched_from, schedule, rows, factors=factors
  )


def repeat_first(source: Source) -> Source:
  """Returns a source whose examples all equal the first: for their shapes."""

  def first_of(fetch: Fetch) -> Fetch:
    def fetch_first(indices: PyTree, **kwargs: int) -> dict[str, np.ndarray]:
      count = len(jax.tree.leaves(indices)[0])
      first = fetch(
        jax.tree.map(lambda x: np.zeros_like(x[:1]), indices), **kwargs
      )
      return {
        k: np.broadcast_to(v, (count, *v.shape[1:])) for k, v in first.items()
      }

    return fetch_first

  sums = source.fetch_sums
  return source._replace(
    fetch=first_of(source.fetch),
    fetch_sums=None if sums is None else first_of(sums),
    ahead=None,
  )


def _factors(config: ConfigDict, schedule: Schedule) -> dict[int, int]:
  """Returns by how much each stage of a game downsamples its reals.

  Images that are cropped at random are needed whole.
  """
  game = games.make(config)
  if game.downsample is None or config.data.get('load_resolution') is not None:
    return {}
  return {
    placed.segment.stage: game.downsample(schedule.phase(placed.first_step))
    for placed in schedule.segments
  }


def index_batch(
  stream: Stream | JointStream | None,
  source: Source | None,
  schedule: Schedule,
  rows: Callable[[int], slice],
  step: int,
  factors: Mapping[int, int] | None = None,
) -> Pair[IndexBatch | None]:
  """Makes the index batches of the dispatch that begins at `step`.

  Args:
    stream: The order of the data. None: the devices sample the examples.
    source: Fetches the examples. None: the examples are on the devices and only
      their indices are sent.
    schedule: The schedule.
    rows: (batch size) -> the rows of this process.
    step: The first iteration of the dispatch.
    factors: By stage, the factor by which the examples are fetched smaller.

  Returns:
    disc: leaves [steps, disc_steps, n, ...]; gen: leaves [steps, n', ...], or
    None if G is updated on D's batch. The discriminator updates take the next
    positions; a separate batch of G reuses the same positions. `example`
    numbers the examples of an iteration; the seed, the step and this number
    determine their keys.
  """
  segment = schedule.segment_at(step).segment
  factor = (factors or {}).get(segment.stage, 1)
  steps, per_step = schedule.steps_per_dispatch, segment.images_per_step
  first = schedule.images(step) + per_step * np.arange(steps, dtype=np.int64)

  def take(first: np.ndarray, examples: np.ndarray) -> IndexBatch:
    positions = first + examples % per_step
    shape = positions.shape
    batch = {'example': np.broadcast_to(examples.astype(np.int32), shape)}
    if stream is None:
      return batch
    indices = stream.indices(positions)
    if source is None:
      return {**batch, 'index': indices}
    if source.ahead is not None:
      source.ahead(stream.upcoming(int(positions.min())), factor)
    fetch = source.fetch
    if factor > 1:
      fetch = partial(source.fetch_sums, factor=factor)
    fetched = fetch(jax.tree.map(np.ravel, indices))
    fetched = {k: v.reshape(*shape, *v.shape[1:]) for k, v in fetched.items()}
    return {**batch, **fetched}

  examples = np.arange(per_step).reshape(segment.disc_steps, -1)
  examples = examples[:, rows(segment.batch_size)]
  disc = take(first[:, None, None], examples)
  if segment.gen_batch_size is None:
    return Pair(gen=None, disc=disc)
  examples = per_step + np.arange(segment.gen_batch_size)
  gen = take(first[:, None], examples[rows(segment.gen_batch_size)])
  return Pair(gen=gen, disc=disc)
