"""Runs one trial: starts it, watches it, stops it, and restarts it if lost.

A trial is lost when its process is killed or preempted, or when its worker
vanishes. It is run again in its own workdir and resumes from its last
checkpoint.
"""

import json
import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from etils import epath

from gan_jax.errors import DIVERGED, UserError, warn
from gan_jax.files import is_held, is_remote
from gan_jax.sweep.process import (
  LOST_CODES,
  ExitStatus,
  RunningTrial,
  Worker,
)

# How often a trial's metrics are read; a bucket answers slowly.
POLL_SECONDS, POLL_BUCKET_SECONDS = 0.25, 20.0
# A trial fails when it is lost this often without training any further.
MAX_LOST = 3


class StopRequest:
  """Whether the sweep was asked to stop, or to stop at once."""

  def __init__(self):
    self.asked, self.at_once = threading.Event(), threading.Event()


class TrialResult(NamedTuple):
  """How a trial ended.

  Attributes:
    how: 'done', 'pruned', 'diverged', 'failed' or 'stopped'.
    line: The reason, in a line.
  """

  how: str
  line: str = ''


class LoggedPoint(NamedTuple):
  """A line of `metrics.jsonl`: the images seen, and the score if it has one."""

  images: int
  score: float | None


class WorkerPool:
  """Lends workers to trials; a worker can vanish."""

  def __init__(self, workers: Sequence[Worker]):
    self._free: queue.SimpleQueue[Worker] = queue.SimpleQueue()
    self._remaining = len(workers)
    for worker in workers:
      self._free.put(worker)

  def take(self, stop: StopRequest) -> Worker | None:
    """Waits for a free worker; None: the sweep was asked to stop.

    Raises:
      UserError: All workers have vanished.
    """
    while not stop.asked.is_set():
      if not self._remaining:
        raise UserError(
          'all slices have vanished: create them again and repeat the command'
        )
      try:
        return self._free.get(timeout=POLL_SECONDS)
      except queue.Empty:
        continue
    return None

  def give_back(self, worker: Worker, lost: bool) -> None:
    """Returns a worker to the pool, unless the worker has vanished."""
    if lost:
      self._remaining -= 1
    else:
      self._free.put(worker)


class MetricsReader:
  """Reads the metrics of a run while the run writes them.

  Args:
    workdir: The run's; it need not exist yet.
    score: The metric that ranks trials.
  """

  def __init__(self, workdir: str, score: str):
    self._file = epath.Path(workdir) / 'metrics.jsonl'
    self._score = score
    self._stamp: object = None
    self.points: list[LoggedPoint] = []
    self.names: set[str] = set()

  def read(self) -> bool:
    """Reads the file; returns whether it has changed since the last call."""
    if not self._file.exists():
      return False
    stat = self._file.stat()
    if (stamp := (stat.length, stat.mtime)) == self._stamp:
      return False
    self._stamp, self.points = stamp, []
    for line in self._file.read_text().splitlines():
      try:
        record = json.loads(line)
        self.names |= record.keys()
        if record['images']:  # a score before training is not a result
          point = LoggedPoint(record['images'], record.get(self._score))
          self.points.append(point)
      except (ValueError, KeyError, TypeError):
        continue  # the run is still writing this line
    return True

  def images(self) -> int:
    """Returns the images seen so far."""
    return max((point.images for point in self.points), default=0)

  def scores(self) -> list[float]:
    """Returns the scores logged so far, the newest last."""
    return [point.score for point in self.points if point.score is not None]


class Monitor(NamedTuple):
  """How the driver follows a trial.

  Attributes:
    metrics: The trial's.
    should_prune: (points) -> whether to prune the trial; called with all points
      whenever the metrics have changed.
    set_state: (state) -> None: shows where the trial runs, or why it does not.
  """

  metrics: MetricsReader
  should_prune: Callable[[list[LoggedPoint]], bool]
  set_state: Callable[[str], None]


def run_trial(
  flags: Sequence[str],
  workdir: str,
  log: Path,
  pool: WorkerPool,
  monitor: Monitor,
  stop: StopRequest,
) -> TrialResult:
  """Runs a trial to its end on free workers, again whenever it is lost.

  Args:
    flags: Flags of `launch.py`, `workdir` included.
    workdir: The trial's.
    log: The file to which the trial's output is appended.
    pool: Lends the workers.
    monitor: Follows the trial and can prune it.
    stop: The stop request of the whole sweep.
  """
  times_lost, reached = 0, -1
  while True:
    worker = pool.take(stop)
    if worker is None:
      return TrialResult('stopped')
    worker_lost = False
    try:
      if not _wait_for_lock(workdir, stop):
        return TrialResult('stopped')
      monitor.set_state(f'on {worker.name}')
      running = worker.start(flags, log)
      status, reason = _follow(running, workdir, monitor, stop)
      worker_lost = status.worker_lost
    finally:
      pool.give_back(worker, worker_lost)
    if status.code == 0:
      return TrialResult('done')
    if reason:
      return TrialResult(reason)
    line = status.line.removeprefix('launch.py: ')
    if status.code == DIVERGED:
      return TrialResult('diverged', line)
    if status.code not in LOST_CODES and not worker_lost:
      return TrialResult('failed', line)
    images = monitor.metrics.images()
    times_lost = times_lost + 1 if images <= reached else 0
    reached = max(reached, images)
    if times_lost >= MAX_LOST:
      line = f'lost {times_lost + 1} times without progress ({status.line})'
      return TrialResult('failed', line)
    if worker_lost:
      warn(
        f'{worker.name} has vanished ({status.line}): {workdir} continues on '
        'another worker'
      )
    monitor.set_state('lost, runs again')


def _wait_for_lock(workdir: str, stop: StopRequest) -> bool:
  """Waits until no process of a killed driver holds the workdir.

  Returns:
    False: the sweep was asked to stop.
  """
  while not is_remote(workdir) and is_held(workdir):
    if stop.asked.wait(POLL_SECONDS):
      return False
  return True


def _follow(
  running: RunningTrial, workdir: str, monitor: Monitor, stop: StopRequest
) -> tuple[ExitStatus, str]:
  """Watches a trial until it ends.

  Returns:
    How it ended; why the driver stopped it, 'pruned' or 'stopped', or ``.
  """
  try:
    return _watch(running, workdir, monitor, stop)
  except BaseException:
    running.stop()  # nobody else would
    while running.poll() is None:
      time.sleep(POLL_SECONDS)
    raise


def _watch(
  running: RunningTrial, workdir: str, monitor: Monitor, stop: StopRequest
) -> tuple[ExitStatus, str]:
  pause = POLL_BUCKET_SECONDS if is_remote(workdir) else POLL_SECONDS
  reason, last_read, killed = '', -pause, False
  while True:
    # Polled before the metrics are read: what an ended run wrote is complete.
    status = running.poll()
    now = time.monotonic()
    if status is not None or now - last_read >= pause:
      last_read = now
      changed = monitor.metrics.read()
      prune = changed and monitor.should_prune(monitor.metrics.points)
      if prune and not reason and status is None:
        reason = 'pruned'
        running.stop()
    if status is not None:
      return status, reason
    if stop.asked.is_set() and not reason:
      reason = 'stopped'
      running.stop()
    if stop.at_once.is_set() and not killed:
      killed = True
      running.kill()
    time.sleep(POLL_SECONDS)
