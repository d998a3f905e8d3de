"""What the rounds are fed, made ahead of them in other processes."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator
from typing import TypeVar

import jax
import numpy as np
from absl import flags
from rich.progress import track

from gan_jax.data.decode import threaded
from gan_jax.data.source import Examples, Source

T = TypeVar('T')

# What a worker has ready, at most; and the threads that it reads with.
AHEAD = 2
THREADS = 2
# Examples that are read in one go, of a set that is read whole.
CHUNK = 2048


def load(make: Callable[[int], T], rounds: range, workers: int) -> Generator[T]:
  """Yields make(round) for each of `rounds`, in order, whatever the workers.

  Args:
    make: A pure function; goes to the workers, so that it can be pickled.
    rounds: The first round of each dispatch.
    workers: Processes that make it; 0: threads of this process.
  """
  import grain  # heavy, and not needed where the data lies on the device

  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # in a notebook; Grain reads its own
  dispatches = grain.MapDataset.range(rounds.start, rounds.stop, rounds.step)
  made = dispatches.map(make).to_iter_dataset(
    grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=AHEAD)
  )
  if workers:
    options = grain.MultiprocessingOptions(
      num_workers=workers, per_worker_buffer_size=AHEAD
    )
    made = made.mp_prefetch(options, worker_init_fn=_begin)
  iterator = iter(made)
  try:
    for part in iterator:
      # Out of the memory that is shared with the workers, which Grain frees.
      yield jax.tree.map(np.array, part)
  finally:
    iterator.close()


def _begin(index: int, count: int) -> None:
  """A worker leaves signals to the run, and never outlives it."""
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)

  def follow():
    multiprocessing.parent_process().join()
    os._exit(1)

  threading.Thread(target=follow, daemon=True).start()


def fetch_all(source: Source) -> Examples:
  """The whole set, in its order, read on all cores."""
  chunks = np.split(np.arange(source.size), range(CHUNK, source.size, CHUNK))
  parts = threaded(source.fetch, chunks)
  title = 'Reading the data'
  first, *rest = track(parts, title, total=len(chunks), transient=True)
  return {
    name: np.concatenate([part[name] for part in (first, *rest)])
    for name in first
  }
