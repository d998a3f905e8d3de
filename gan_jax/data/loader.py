"""What the iterations are fed, made ahead of them in other processes."""

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from multiprocessing import resource_tracker
from typing import TypeVar

import numpy as np
from absl import flags

from gan_jax.data.decode import progress, threaded
from gan_jax.data.source import Examples, Source
from gan_jax.errors import UserError

T = TypeVar('T')

# What a worker has ready, at most; and the threads that it reads with.
IN_FLIGHT = 2
THREADS = 2
# Examples that are read in one go, of a set that is read whole.
CHUNK = 2048


def load(make: Callable[[int], T], steps: range, workers: int) -> Generator[T]:
  """Yields make(step) for each of `steps`, in order, whatever the workers.

  Args:
    make: A pure function; goes to the workers, so that it can be pickled.
    iterations: The first iteration of each dispatch.
    workers: Processes that make it; 0: threads of this process.
  """
  import grain  # heavy, and not needed where the data lies on the device

  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # in a notebook; Grain reads its own
  dispatches = grain.MapDataset.range(steps.start, steps.stop, steps.step)
  # As bytes: of the arrays that Grain would share, it leaves some behind.
  made = dispatches.map(lambda step: pickle.dumps(make(step)))
  made = made.to_iter_dataset(
    grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=IN_FLIGHT)
  )
  if workers:
    options = grain.MultiprocessingOptions(
      num_workers=workers, per_worker_buffer_size=IN_FLIGHT
    )
    made = made.mp_prefetch(options, worker_init_fn=_begin)
  iterator = iter(made)
  try:
    with _deaf():  # the workers start with the first
      part = next(iterator, None)
    while part is not None:
      yield pickle.loads(part)
      part = next(iterator, None)
  except RuntimeError as error:
    raise UserError(
      f'a loader process has died ({" ".join(str(error).split())[:80]}): if '
      'memory ran out, take fewer --config.data.workers'
    ) from error
  finally:
    iterator.close()


def _begin(index: int, count: int) -> None:
  """A worker never outlives its run."""

  def follow():
    multiprocessing.parent_process().join()
    os._exit(1)

  threading.Thread(target=follow, daemon=True).start()


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
  """What is started here never hears of Ctrl-C and SIGTERM: the run sees to it.

  This process hears of them afterwards.
  """
  resource_tracker.ensure_running()  # or its start would lift the block
  stop = {signal.SIGINT, signal.SIGTERM}
  before = signal.pthread_sigmask(signal.SIG_BLOCK, stop)
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def fetch_all(source: Source) -> Examples:
  """The whole set, in its order, read on all cores."""
  chunks = np.split(np.arange(source.size), range(CHUNK, source.size, CHUNK))
  fetched = threaded(source.fetch, chunks)
  parts = list(progress(fetched, 'Reading the data', len(chunks)))
  return {
    name: np.concatenate([part[name] for part in parts]) for name in parts[0]
  }
