"""Runs trials on TPU slices, each on all hosts of a slice, by `gcloud`.

A run holds a lock on each host of its slice, which the kernel releases when the
run ends. The lock reveals a run that a lost driver or connection has left
behind: before another trial starts, that run is asked to save, and waited for.
(A slice that cannot be reached cannot be asked. A run that is left there ends
at its next output, because the connection is closed.)
"""

import re
import shlex
import subprocess
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gan_jax.errors import DIVERGED, UserError
from gan_jax.sweep.process import (
  LOST_CODES,
  SSH_FAILED,
  ExitStatus,
  Process,
  Worker,
)

# Files on each host. (A pid alone may belong to another process by now.)
LOCK, PID = '${TMPDIR:-/tmp}/gan_jax.files', '${TMPDIR:-/tmp}/gan_jax.pid'
SIGNAL_COMMAND = f'flock -n "{LOCK}" true || kill -%s "$(cat "{PID}")"'
# Asks a left-over run to save, and waits for it to end, at most 10 minutes.
CLEAR_COMMAND = SIGNAL_COMMAND % 'TERM' + f'; flock -w 600 "{LOCK}" true'
# A run that has not started yet misses the signal, so it is sent again.
STOP_AGAIN_SECONDS = 20
# Beginnings of lines that gcloud adds to the output of the hosts.
GCLOUD_PREFIXES = '#####', 'SSH: ', 'Using ssh batch size'


def make_workers(
  slices: Sequence[str],
  zone: str | None,
  remote: str,
  parallel_trials: int | None,
  **unused: Any,
) -> list[Worker]:
  """Makes a worker for each slice.

  Args:
    slices: The names of the slices.
    zone: Their zone; None: gcloud's default.
    remote: The shell command that enters the folder of `launch.py` on a host.
    parallel_trials: The number of slices to use; None: all.
    **unused: Options of other executors.

  Raises:
    UserError: No slices are named, or fewer than `parallel_trials`.
  """
  del unused
  if not slices:
    raise UserError('--executor=tpu needs --slices=NAME,NAME,...')
  if parallel_trials is not None and parallel_trials > len(slices):
    raise UserError(
      f'--parallel_trials={parallel_trials} needs as many slices, but --slices '
      f'names {len(slices)}'
    )
  return [_make_worker(name, zone, remote) for name in slices[:parallel_trials]]


def _make_worker(name: str, zone: str | None, remote: str) -> Worker:
  on_hosts = partial(ssh, name, zone)

  def command(flags: Sequence[str]) -> str:
    return shlex.join(on_hosts(script(remote, flags)))

  def start(flags: Sequence[str], log: Path) -> '_SliceTrial':
    return _SliceTrial(name, zone, script(remote, flags), log)

  def problem() -> str:
    return _clear(on_hosts(CLEAR_COMMAND))

  return Worker(name, command, start, problem)


def ssh(name: str, zone: str | None, command: str) -> list[str]:
  """Returns the command line that runs `command` on every host of a slice."""
  where = [f'--zone={zone}'] if zone else []
  return [
    'gcloud', 'compute', 'tpus', 'tpu-vm', 'ssh', name, *where, '--worker=all',
    f'--command={command}',
  ]  # fmt: skip


def script(remote: str, flags: Sequence[str]) -> str:
  """Returns the script of a host: takes the lock, then becomes the run."""
  run = shlex.join(['python', 'launch.py', *flags])
  return (
    f'{remote} && exec 9>"{LOCK}" && '
    f'{{ flock -n 9 || {{ kill -TERM "$(cat "{PID}")"; flock 9; }}; }} && '
    f'echo $$ >"{PID}" && exec {run}'
  )


def _clear(command: Sequence[str]) -> str:
  """Waits until no run is left on a slice; returns why this failed, or ``."""
  try:
    done = subprocess.run(
      command, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
  except FileNotFoundError as error:
    raise UserError('--executor=tpu needs gcloud on the PATH') from error
  lines = _host_lines(done.stdout + done.stderr)
  return (lines or ['gcloud failed'])[-1] if done.returncode else ''


def _host_lines(output: str) -> list[str]:
  """Returns the lines that are not gcloud's own."""
  lines = [line.strip() for line in output.splitlines()]
  return [
    line for line in lines if line and not line.startswith(GCLOUD_PREFIXES)
  ]


class _SliceTrial:
  """A trial on all hosts of a slice."""

  def __init__(self, name: str, zone: str | None, script: str, log: Path):
    self._on_hosts = partial(ssh, name, zone)
    self._log = log
    self._process = Process(self._on_hosts(script), log)
    self._signals: list[Process] = []
    self._last_stop = 0.0

  def poll(self) -> ExitStatus | None:
    """Returns how the trial ended, and whether its slice still exists."""
    status = self._process.poll()
    if status is None:
      waited = time.monotonic() - self._last_stop
      if self._last_stop and waited > STOP_AGAIN_SECONDS:
        self.stop()
      return None
    for process in self._signals:
      process.wait()
    if not status.code:
      return status
    output = self._process.output()
    # gcloud returns the exit code of one host. But when a run is killed on one
    # host, it fails on the others, so the codes of all hosts are read.
    codes = set(map(int, re.findall(r'failed with exit status (\d+)', output)))
    codes.add(status.code)
    meaningful = DIVERGED, *sorted(LOST_CODES)
    known = [code for code in meaningful if code in codes]
    code = (known or [status.code])[0]
    line = (_host_lines(output) or [status.line])[-1]
    if line.startswith('ERROR: (gcloud'):
      code = SSH_FAILED
    if self._last_stop:
      return ExitStatus(code, line)
    problem = _clear(self._on_hosts(CLEAR_COMMAND))
    return ExitStatus(code, problem or line, worker_lost=bool(problem))

  def stop(self) -> None:
    """Asks the trial to save its state and exit."""
    self._last_stop = time.monotonic()
    self._send('TERM')

  def kill(self) -> None:
    """Ends the trial at once."""
    self._send('KILL')
    self._process.kill()

  def _send(self, signal: str) -> None:
    log = self._log.with_suffix('.stop.txt')
    self._signals.append(Process(self._on_hosts(SIGNAL_COMMAND % signal), log))
