"""Trials on TPU slices, each on all hosts of one, by `gcloud`.

A run holds a lock on each host of its slice, which the kernel lets go when the
run is over. So what a lost driver or connection has left behind is found: it is
told to save, and waited for, before anything else is run. (A slice that cannot
be reached cannot be asked: what still ran there ends when it next speaks, since
nobody listens.)
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
from gan_jax.sweep.process import LOST, UNCONNECTED, Ended, Place, Process

# On each host. (A pid alone may long be somebody else's.)
LOCK, PID = '${TMPDIR:-/tmp}/gan_jax.files', '${TMPDIR:-/tmp}/gan_jax.pid'
TELL = f'flock -n "{LOCK}" true || kill -%s "$(cat "{PID}")"'
# Waits for what is told to leave; it has so long to save.
CLEAR = TELL % 'TERM' + f'; flock -w 600 "{LOCK}" true'
# A run that is asked to stop may only be about to begin: it is asked again.
STOP_AGAIN_SECONDS = 20
# What gcloud says of its own, among what the hosts say.
ASIDE = '#####', 'SSH: ', 'Using ssh batch size'


def places(
  slices: Sequence[str],
  zone: str | None,
  remote: str,
  parallel_trials: int | None,
  **unused: Any,
) -> list[Place]:
  """A place for each slice.

  Args:
    slices: Their names.
    zone: In which they are; None: the one that gcloud is set to.
    remote: What is to be done on a host, to be where `python launch.py` is.
    parallel_trials: Of the slices, so many are used; None: all.
    **unused: What other executors take.

  Raises:
    UserError: There are fewer slices.
  """
  del unused
  if not slices:
    raise UserError('--executor=tpu needs --slices=NAME,NAME,...')
  if parallel_trials is not None and parallel_trials > len(slices):
    raise UserError(
      f'--parallel_trials={parallel_trials}, and there are {len(slices)} '
      'slices: a slice has one trial at a time'
    )
  return [_place(name, zone, remote) for name in slices[:parallel_trials]]


def _place(name: str, zone: str | None, remote: str) -> Place:
  on_hosts = partial(ssh, name, zone)

  def command(flags: Sequence[str]) -> str:
    return shlex.join(on_hosts(script(remote, flags)))

  def start(flags: Sequence[str], log: Path) -> '_OnSlice':
    return _OnSlice(name, zone, script(remote, flags), log)

  def problem() -> str:
    return _clear(on_hosts(CLEAR))

  return Place(name, command, start, problem)


def ssh(name: str, zone: str | None, command: str) -> list[str]:
  """The command line that runs `command` on every host of the slice."""
  where = [f'--zone={zone}'] if zone else []
  return [
    'gcloud', 'compute', 'tpus', 'tpu-vm', 'ssh', name, *where, '--worker=all',
    f'--command={command}',
  ]  # fmt: skip


def script(remote: str, flags: Sequence[str]) -> str:
  """What a host does: it takes the lock, and becomes the run."""
  run = shlex.join(['python', 'launch.py', *flags])
  return (
    f'{remote} && exec 9>"{LOCK}" && '
    f'{{ flock -n 9 || {{ kill -TERM "$(cat "{PID}")"; flock 9; }}; }} && '
    f'echo $$ >"{PID}" && exec {run}'
  )


def _clear(command: Sequence[str]) -> str:
  """Waits until nothing of ours runs on a slice; why that failed, or ``."""
  try:
    done = subprocess.run(
      command, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
  except FileNotFoundError as error:
    raise UserError('--executor=tpu needs gcloud on the PATH') from error
  said = _own_lines(done.stdout + done.stderr)
  return (said or ['gcloud failed'])[-1] if done.returncode else ''


def _own_lines(said: str) -> list[str]:
  lines = [line.strip() for line in said.splitlines()]
  return [line for line in lines if line and not line.startswith(ASIDE)]


class _OnSlice:
  """A trial on all hosts of a slice."""

  def __init__(self, name: str, zone: str | None, script: str, log: Path):
    self._on_hosts = partial(ssh, name, zone)
    self._log = log
    self._process = Process(self._on_hosts(script), log)
    self._told: list[Process] = []
    self._asked = 0.0

  def poll(self) -> Ended | None:
    """How it has left; whether the slice is still there is looked up."""
    ended = self._process.poll()
    if ended is None:
      waited = time.monotonic() - self._asked
      if self._asked and waited > STOP_AGAIN_SECONDS:
        self.stop()
      return None
    for told in self._told:
      told.wait()
    if not ended.code:
      return ended
    said = self._process.said()
    # Each host has a code, and gcloud's is that of one of them: where one is
    # killed, the others fail.
    codes = set(map(int, re.findall(r'failed with exit status (\d+)', said)))
    codes.add(ended.code)
    known = [code for code in (DIVERGED, *sorted(LOST)) if code in codes]
    code = (known or [ended.code])[0]
    line = (_own_lines(said) or [ended.line])[-1]
    if line.startswith('ERROR: (gcloud'):
      code = UNCONNECTED
    if self._asked:
      return Ended(code, line)
    problem = _clear(self._on_hosts(CLEAR))
    return Ended(code, problem or line, gone=bool(problem))

  def stop(self) -> None:
    """Asks it to save and leave."""
    self._asked = time.monotonic()
    self._tell('TERM')

  def kill(self) -> None:
    """Ends it at once."""
    self._tell('KILL')
    self._process.kill()

  def _tell(self, signal: str) -> None:
    log = self._log.with_suffix('.stop.txt')
    self._told.append(Process(self._on_hosts(TELL % signal), log))
