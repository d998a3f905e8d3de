"""One trial: started, watched, pruned, stopped, and started again if lost.

A trial is lost when its process is killed or preempted, or when its node
vanishes. It is run again in its own workdir and resumes from its last
checkpoint.
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from etils import epath

from gan_jax.errors import DIVERGED
from gan_jax.files import is_remote
from gan_jax.sweep.executors import Executor
from gan_jax.sweep.process import LOST_CODES, ExitStatus, RunningTrial

# How often a trial's metrics are read; a bucket answers slowly.
POLL_SECONDS, POLL_BUCKET_SECONDS = 0.25, 20.0
# A trial fails when it is lost this often without training any further.
MAX_LOST = 3


class StopRequest:
  """Whether a stop of the sweep is requested, or an immediate stop."""

  def __init__(self):
    self.asked = self.at_once = False


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


class Trial:
  """A trial on its way to its end.

  Args:
    flags: Flags of `launch.py`, `workdir` included.
    workdir: The trial's.
    log: The file to which the trial's output is appended.
    executor: Starts the trial.
    metrics: Reads its metrics.
    should_prune: (points) -> whether to prune the trial; called with all points
      whenever the metrics have changed.
  """

  def __init__(
    self,
    flags: Sequence[str],
    workdir: str,
    log: Path,
    executor: Executor,
    metrics: MetricsReader,
    should_prune: Callable[[list[LoggedPoint]], bool],
  ):
    self.metrics, self.begun, self.state = metrics, time.monotonic(), ''
    self._start = lambda: executor.start(flags, workdir, log)
    self._should_prune = should_prune
    self._pause = POLL_BUCKET_SECONDS if is_remote(workdir) else POLL_SECONDS
    self._running: RunningTrial | None = None
    self._reason, self._last_read, self._killed = '', -self._pause, False
    self._times_lost, self._reached = 0, -1

  def step(self, stop: StopRequest) -> TrialResult | None:
    """Polls the trial, and acts; returns how it ended, or None."""
    if self._running is None:
      if stop.asked:
        return TrialResult('stopped')
      self._running = self._start()
    # Polled before the metrics are read: what an ended run wrote is complete.
    status = self._running.poll()
    self.state = f'on {self._running.place}' if self._running.place else ''
    self._read_metrics(ended=status is not None)
    if status is not None:
      return self._result(status)
    if stop.asked and not self._reason:
      self._reason = 'stopped'
    if self._reason:
      self._running.stop()
    if stop.at_once and not self._killed:
      self._killed = True
      self._running.kill()
    return None

  def _read_metrics(self, ended: bool) -> None:
    now = time.monotonic()
    if ended or now - self._last_read >= self._pause:
      self._last_read = now
      changed = self.metrics.read()
      if changed and self._should_prune(self.metrics.points) and not ended:
        self._reason = self._reason or 'pruned'

  def _result(self, status: ExitStatus) -> TrialResult | None:
    """Returns how the trial ended; None: it was lost, and starts again."""
    self._running = None
    if status.code == 0:
      return TrialResult('done')
    if self._reason:
      return TrialResult(self._reason)
    line = status.line.removeprefix('launch.py: ')
    if status.code == DIVERGED:
      return TrialResult('diverged', line)
    if status.code not in LOST_CODES:
      return TrialResult('failed', line)
    images = self.metrics.images()
    self._times_lost = self._times_lost + 1 if images <= self._reached else 0
    self._reached = max(self._reached, images)
    if self._times_lost >= MAX_LOST:
      line = f'lost {self._times_lost + 1} times without progress ({line})'
      return TrialResult('failed', line)
    self.state = 'lost, runs again'
    return None
