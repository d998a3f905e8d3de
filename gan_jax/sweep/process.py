"""A trial that goes, and the place where it does."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from gan_jax.errors import PREEMPTED

# What ssh leaves with when it was the connection that failed.
UNCONNECTED = 255
_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM)
# Exit codes of what was ended from outside: as Python tells, and as a shell.
LOST = {-number for number in _SIGNALS} | {128 + number for number in _SIGNALS}
LOST |= {PREEMPTED, UNCONNECTED}
# Says what a process of ours is to be before it becomes it.
CHILD = str(Path(__file__).with_name('child.py'))


class Ended(NamedTuple):
  """How a process left.

  Attributes:
    code: Its exit code; a signal's number, negative, if that has killed it.
    line: The last that it said.
    gone: Whether the place went with it, and nothing may run there any more.
  """

  code: int
  line: str
  gone: bool = False


@runtime_checkable
class Running(Protocol):
  """A trial that was started."""

  def poll(self) -> Ended | None:
    """How it has left; None: it goes on."""

  def stop(self) -> None:
    """Asks it to save and leave."""

  def kill(self) -> None:
    """Ends it at once."""


class Place(NamedTuple):
  """Where one trial at a time may run.

  Attributes:
    name: For the user.
    command: (flags of launch.py) -> what is typed to run it there.
    start: (flags, the file for what it says) -> the trial, running.
    problem: () -> why nothing can run there, or ``. What a driver that is lost
      may have left running there has ended then.
  """

  name: str
  command: Callable[[Sequence[str]], str]
  start: Callable[[Sequence[str], Path], Running]
  problem: Callable[[], str] = lambda: ''


class Process:
  """A process of this machine, which leaves when we are killed.

  Args:
    command: Its command line.
    log: The file to which what it says is added.
    env: The environment, where that is not ours.
    cores: Those that it may use; none: as we.
  """

  def __init__(
    self,
    command: Sequence[str],
    log: Path,
    env: Mapping[str, str] | None = None,
    cores: Sequence[int] = (),
  ):
    log.parent.mkdir(parents=True, exist_ok=True)
    shared = ','.join(map(str, cores))
    self._log = log
    with log.open('ab') as file:
      self._begin = file.tell()
      self._popen = subprocess.Popen(
        [sys.executable, '-S', CHILD, str(os.getpid()), shared, *command],
        stdin=subprocess.DEVNULL,
        stdout=file,
        stderr=subprocess.STDOUT,
        env=env,
        # Ctrl-C is the driver's: it tells its trials by itself.
        start_new_session=True,
      )

  def poll(self) -> Ended | None:
    """How it has left; None: it goes on."""
    code = self._popen.poll()
    if code is None:
      return None
    lines = [line for line in self.said().splitlines() if line.strip()]
    return Ended(code, lines[-1].strip() if lines else 'it said nothing')

  def wait(self) -> None:
    """Waits until it has left."""
    self._popen.wait()

  def said(self) -> str:
    """All that it has said."""
    with self._log.open('rb') as file:
      file.seek(self._begin)
      return file.read().decode(errors='replace')

  def stop(self) -> None:
    """SIGTERM: a run saves, and leaves."""
    self._popen.terminate()

  def kill(self) -> None:
    """SIGKILL, of all that it has started too."""
    if self._popen.poll() is None:
      os.killpg(self._popen.pid, signal.SIGKILL)
