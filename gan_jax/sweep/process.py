"""The process of a trial, and the worker that it runs on."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from gan_jax.errors import PREEMPTED

# The exit code of ssh when the connection itself fails.
SSH_FAILED = 255
_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM)
# Exit codes of a process that was ended from outside: the codes that Python
# reports (negative), and those that a shell reports (from 128).
LOST_CODES = {-number for number in _SIGNALS}
LOST_CODES |= {128 + number for number in _SIGNALS} | {PREEMPTED, SSH_FAILED}
# Prepares a child process, and then becomes the trial's command.
CHILD = str(Path(__file__).with_name('child.py'))


class ExitStatus(NamedTuple):
  """How a process ended.

  Attributes:
    code: Its exit code; the negative signal number if a signal killed it.
    line: The last line of its output.
    worker_lost: Whether its worker vanished too, so that nothing can run there.
  """

  code: int
  line: str
  worker_lost: bool = False


@runtime_checkable
class RunningTrial(Protocol):
  """A trial that was started."""

  def poll(self) -> ExitStatus | None:
    """Returns how the trial ended; None: it is still running."""

  def stop(self) -> None:
    """Asks the trial to save its state and exit."""

  def kill(self) -> None:
    """Ends the trial at once."""


class Worker(NamedTuple):
  """Runs one trial at a time.

  Attributes:
    name: For the user.
    command: (flags of launch.py) -> the command line that a user would type to
      run the trial there.
    start: (flags, log file) -> the running trial.
    problem: () -> why no trial can run there, or ``. When the call returns,
      trials that a lost driver left running there have ended.
  """

  name: str
  command: Callable[[Sequence[str]], str]
  start: Callable[[Sequence[str], Path], RunningTrial]
  problem: Callable[[], str] = lambda: ''


class Process:
  """A process on this machine that ends when the driver is killed.

  Args:
    command: Its command line.
    log: The file to which its output is appended.
    env: Its environment; None: the driver's.
    cores: The CPU cores that it may use; empty: the driver's.
  """

  def __init__(
    self,
    command: Sequence[str],
    log: Path,
    env: Mapping[str, str] | None = None,
    cores: Sequence[int] = (),
  ):
    log.parent.mkdir(parents=True, exist_ok=True)
    core_list = ','.join(map(str, cores))
    self._log = log
    with log.open('ab') as file:
      self._log_offset = file.tell()
      self._popen = subprocess.Popen(
        [sys.executable, '-S', CHILD, str(os.getpid()), core_list, *command],
        stdin=subprocess.DEVNULL,
        stdout=file,
        stderr=subprocess.STDOUT,
        env=env,
        # Ctrl-C reaches only the driver, which stops its trials itself.
        start_new_session=True,
      )

  def poll(self) -> ExitStatus | None:
    """Returns how the process ended; None: it is still running."""
    code = self._popen.poll()
    if code is None:
      return None
    lines = [line for line in self.output().splitlines() if line.strip()]
    return ExitStatus(code, lines[-1].strip() if lines else 'no output')

  def wait(self) -> None:
    """Waits until the process has ended."""
    self._popen.wait()

  def output(self) -> str:
    """Returns all output of the process so far."""
    with self._log.open('rb') as file:
      file.seek(self._log_offset)
      return file.read().decode(errors='replace')

  def stop(self) -> None:
    """Sends SIGTERM: a run saves its state and exits."""
    self._popen.terminate()

  def kill(self) -> None:
    """Sends SIGKILL to the process and to all processes that it started."""
    if self._popen.poll() is None:
      os.killpg(self._popen.pid, signal.SIGKILL)
