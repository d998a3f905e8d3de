"""Loading of dispatches in worker processes, ahead of the training loop."""

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from multiprocessing import resource_tracker
from typing import Any, TypeVar

import numpy as np
from absl import flags

from gan_jax.data.decode import progress, threaded
from gan_jax.data.source import Source
from gan_jax.errors import UserError

T = TypeVar('T')

# The largest number of dispatches that a worker prefetches.
PREFETCH = 2
# The number of reading threads of a worker.
THREADS = 2
# The number of examples that `fetch_all` reads at once.
CHUNK = 2048


def load(make: Callable[[int], T], steps: range, workers: int) -> Generator[T]:
  """Yields make(step) for each of `steps`, in order, for any number of workers.

  Args:
    make: A pure function. Must be picklable, because the workers receive it.
    steps: The first iteration of each dispatch.
    workers: The number of processes that call it; 0: threads of this process.

  Raises:
    UserError: A worker process died.
  """
  import grain  # slow to import, and not needed for resident data

  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # Grain reads its flags, also in a notebook
  dispatches = grain.MapDataset.range(steps.start, steps.stop, steps.step)
  # Pickled, because Grain leaks some of the arrays that its processes share.
  dispatches = dispatches.map(lambda step: pickle.dumps(make(step)))
  dispatches = dispatches.to_iter_dataset(
    grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=PREFETCH)
  )
  if workers:
    options = grain.MultiprocessingOptions(
      num_workers=workers, per_worker_buffer_size=PREFETCH
    )
    dispatches = dispatches.mp_prefetch(
      options, worker_init_fn=_exit_with_parent
    )
  iterator = iter(dispatches)
  try:
    with _block_signals():  # the first call starts the workers
      pickled = next(iterator, None)
    while pickled is not None:
      yield pickle.loads(pickled)
      pickled = next(iterator, None)
  except RuntimeError as error:
    raise UserError(
      f'a data worker process died ({" ".join(str(error).split())[:80]}): if '
      'memory ran out, reduce --config.data.workers'
    ) from error
  finally:
    iterator.close()


def _exit_with_parent(index: int, count: int) -> None:
  """Makes a worker process exit when its parent process ends."""

  def wait():
    multiprocessing.parent_process().join()
    os._exit(1)

  threading.Thread(target=wait, daemon=True).start()


@contextlib.contextmanager
def _block_signals() -> Iterator[None]:
  """Blocks Ctrl-C and SIGTERM in the processes that are started in the block.

  The run handles both signals and stops its workers. This process receives the
  signals after the block.
  """
  # Started first, because starting the resource tracker unblocks the signals.
  resource_tracker.ensure_running()
  stop = {signal.SIGINT, signal.SIGTERM}
  before = signal.pthread_sigmask(signal.SIG_BLOCK, stop)
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def fetch_all(source: Source) -> dict[str, Any]:
  """Fetches all examples in order, with a thread for each core.

  Those of a joined source are by the names of its parts.
  """
  if source.parts:
    return {name: fetch_all(part) for name, part in source.parts.items()}
  chunks = np.split(np.arange(source.size), range(CHUNK, source.size, CHUNK))
  fetched = threaded(source.fetch, chunks)
  parts = list(progress(fetched, 'Reading the data', len(chunks)))
  return {
    name: np.concatenate([part[name] for part in parts]) for name in parts[0]
  }
