"""One trial: it is started, watched, stopped, and started again if it is lost.

It is lost where its process is killed, or preempted, or its place vanishes: it
is run again in its own workdir, and goes on from its last checkpoint.
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
from gan_jax.sweep.process import LOST, Ended, Place, Running

# How often a trial is looked at; a bucket answers slowly.
POLL_SECONDS, POLL_BUCKET_SECONDS = 0.25, 20.0
# How often a trial is lost without having got any further.
MOST_LOST = 3


class Stop:
  """What the driver was told: to leave, or to leave at once."""

  def __init__(self):
    self.asked, self.at_once = threading.Event(), threading.Event()


class Ending(NamedTuple):
  """How a trial ended: 'done', 'pruned', 'diverged', 'failed' or 'left'."""

  how: str
  line: str = ''


class Point(NamedTuple):
  """A line of metrics: the images seen, and the score, if it has that."""

  images: int
  score: float | None


class Places:
  """Places that trials take, and give back; some vanish."""

  def __init__(self, several: Sequence[Place]):
    self._free: queue.SimpleQueue[Place] = queue.SimpleQueue()
    self._left = len(several)
    for place in several:
      self._free.put(place)

  def take(self, stop: Stop) -> Place | None:
    """Waits for one; None: the sweep is to leave.

    Raises:
      UserError: All have vanished.
    """
    while not stop.asked.is_set():
      if not self._left:
        raise UserError('all slices have vanished: create them, and run again')
      try:
        return self._free.get(timeout=POLL_SECONDS)
      except queue.Empty:
        continue
    return None

  def give(self, place: Place, gone: bool) -> None:
    """Gives it back; or tells that it is gone."""
    if gone:
      self._left -= 1
    else:
      self._free.put(place)


class Tail:
  """The metrics of a run, read as it writes them.

  Args:
    workdir: The run's, which need not be there yet.
    score: The metric that ranks.
  """

  def __init__(self, workdir: str, score: str):
    self._file = epath.Path(workdir) / 'metrics.jsonl'
    self._score = score
    self._stamp: object = None
    self.points: list[Point] = []
    self.names: set[str] = set()

  def read(self) -> bool:
    """Reads what there is; whether it has changed."""
    if not self._file.exists():
      return False
    stat = self._file.stat()
    if (stamp := (stat.length, stat.mtime)) == self._stamp:
      return False
    self._stamp, self.points = stamp, []
    for line in self._file.read_text().splitlines():
      try:
        said = json.loads(line)
        self.names |= said.keys()
        if said['images']:  # what is not trained yet is no result
          self.points.append(Point(said['images'], said.get(self._score)))
      except (ValueError, KeyError, TypeError):
        continue  # it is being written
    return True


class Watch(NamedTuple):
  """What a trial is told by, and tells.

  Attributes:
    tail: Its metrics.
    hopeless: (points) -> whether it is to be pruned; asked of all news.
    tell: (state) -> None: where it runs, or why not.
  """

  tail: Tail
  hopeless: Callable[[list[Point]], bool]
  tell: Callable[[str], None]


def play(
  flags: Sequence[str],
  workdir: str,
  log: Path,
  places: Places,
  watch: Watch,
  stop: Stop,
) -> Ending:
  """Runs a trial to its end, in whatever place is free, again if it is lost.

  Args:
    flags: Of launch.py.
    workdir: The trial's, which is in them.
    log: Where what it says is kept.
    places: Where trials may run.
    watch: Is told how it goes, and may end it.
    stop: Of the whole sweep.
  """
  lost, reached = 0, -1
  while True:
    place = places.take(stop)
    if place is None:
      return Ending('left')
    gone = False
    try:
      if not _released(workdir, stop):
        return Ending('left')
      watch.tell(f'on {place.name}')
      running = place.start(flags, log)
      ended, asked = _follow(running, workdir, watch, stop)
      gone = ended.gone
    finally:
      places.give(place, gone)
    if ended.code == 0:
      return Ending('done')
    if asked:
      return Ending(asked)
    line = ended.line.removeprefix('launch.py: ')
    if ended.code == DIVERGED:
      return Ending('diverged', line)
    if ended.code not in LOST and not gone:
      return Ending('failed', line)
    images = max((point.images for point in watch.tail.points), default=0)
    lost = lost + 1 if images <= reached else 0
    reached = max(reached, images)
    if lost >= MOST_LOST:
      return Ending('failed', f'lost {lost + 1} times ({ended.line})')
    if gone:
      warn(f'{place.name} is gone ({ended.line}): {workdir} goes on elsewhere')
    watch.tell('lost, and run again')


def _released(workdir: str, stop: Stop) -> bool:
  """Waits for a process of a driver that was killed; False: we are to leave."""
  while not is_remote(workdir) and is_held(workdir):
    if stop.asked.wait(POLL_SECONDS):
      return False
  return True


def _follow(
  running: Running, workdir: str, watch: Watch, stop: Stop
) -> tuple[Ended, str]:
  """Watches a trial until it has left; whether it was asked to, and why."""
  try:
    return _watch(running, workdir, watch, stop)
  except BaseException:
    running.stop()  # nobody else will
    while running.poll() is None:
      time.sleep(POLL_SECONDS)
    raise


def _watch(
  running: Running, workdir: str, watch: Watch, stop: Stop
) -> tuple[Ended, str]:
  pause = POLL_BUCKET_SECONDS if is_remote(workdir) else POLL_SECONDS
  asked, looked, killed = '', -pause, False
  while True:
    # What it has written when it has left, it has written by then.
    ended = running.poll()
    now = time.monotonic()
    if ended is not None or now - looked >= pause:
      looked = now
      hopeless = watch.tail.read() and watch.hopeless(watch.tail.points)
      if hopeless and not asked and ended is None:
        asked = 'pruned'
        running.stop()
    if ended is not None:
      return ended, asked
    if stop.asked.is_set() and not asked:
      asked = 'left'
      running.stop()
    if stop.at_once.is_set() and not killed:
      killed = True
      running.kill()
    time.sleep(POLL_SECONDS)
