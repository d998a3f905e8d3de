"""The process of a trial."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from gan_jax.errors import PREEMPTED
from gan_jax.files import is_remote

_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM)
# Exit codes of a process that was ended from outside: the codes that Python
# reports (negative), and those that a shell reports (from 128).
LOST_CODES = {-number for number in _SIGNALS}
LOST_CODES |= {128 + number for number in _SIGNALS} | {PREEMPTED}
# Prepares a child process, and then becomes the trial's command.
CHILD = str(Path(__file__).with_name('child.py'))


class ExitStatus(NamedTuple):
  """How a process ended.

  Attributes:
    code: Its exit code; the negative signal number if a signal killed it.
    line: The last line of its output.
  """

  code: int
  line: str


@runtime_checkable
class RunningTrial(Protocol):
  """A trial that was started.

  Attributes:
    place: Where it runs, for the user; `` before it runs.
  """

  place: str

  def poll(self) -> ExitStatus | None:
    """Returns how the trial ended; None: it is still running."""

  def stop(self) -> None:
    """Asks the trial to save its state and exit; it may be called again."""

  def kill(self) -> None:
    """Ends the trial at once."""


class Process:
  """A run of launch.py on this machine, which is stopped when its parent dies.

  Args:
    command: Its command line.
    workdir: The workdir whose lock to wait for; `` waits for none.
    log: The file to which its output is appended.
    env: Its environment; None: the parent's.
    cores: The CPU cores that it may use; empty: the parent's.
    cwd: Its working folder; None: the parent's.
    place: Where it runs, for the user.
  """

  def __init__(
    self,
    command: Sequence[str],
    workdir: str,
    log: Path,
    env: Mapping[str, str] | None = None,
    cores: Sequence[int] = (),
    cwd: str | None = None,
    place: str = '',
  ):
    log.parent.mkdir(parents=True, exist_ok=True)
    has_lock = workdir and not is_remote(workdir)
    lock = os.path.join(workdir, '.lock') if has_lock else ''
    prefix = [CHILD, str(os.getpid()), ','.join(map(str, cores)), lock]
    self._log, self._stopped, self.place = log, False, place
    with log.open('ab') as file:
      self._log_offset = file.tell()
      self._popen = subprocess.Popen(
        [sys.executable, '-S', *prefix, *command],
        stdin=subprocess.DEVNULL,
        stdout=file,
        stderr=subprocess.STDOUT,
        env=env,
        cwd=cwd,
        # Ctrl-C reaches only the driver, which stops its trials itself.
        start_new_session=True,
      )

  def is_running(self) -> bool:
    """Returns whether the process has not ended."""
    return self._popen.poll() is None

  def poll(self) -> ExitStatus | None:
    """Returns how the process ended; None: it is still running."""
    if self.is_running():
      return None
    with self._log.open('rb') as file:
      file.seek(self._log_offset)
      output = file.read().decode(errors='replace')
    lines = [line for line in output.splitlines() if line.strip()]
    line = lines[-1].strip() if lines else 'no output'
    return ExitStatus(self._popen.returncode, line)

  def stop(self) -> None:
    """Sends SIGTERM, once: a run saves its state and exits."""
    if not self._stopped:
      self._stopped = True
      self._popen.terminate()

  def kill(self) -> None:
    """Sends SIGKILL to the process and to all processes that it started."""
    if self.is_running():
      os.killpg(self._popen.pid, signal.SIGKILL)
