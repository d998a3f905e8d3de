"""Runs trials on this machine, each with its own share of the devices.

The devices are found without JAX, which would reserve the accelerators that the
trials need.
"""

import os
import re
import shlex
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gan_jax.errors import UserError
from gan_jax.sweep.process import Process

# libtpu's bounds for this many neighbouring chips of a host.
CHIPS = {1: '1,1,1', 2: '1,2,1', 4: '2,2,1', 8: '2,4,1'}


class DeviceShare(NamedTuple):
  """The devices of one trial.

  Attributes:
    name: For the user.
    env: Environment variables that select the devices.
    cores: The CPU cores that the trial may use; empty: all.
    flags: Further flags of `launch.py`.
  """

  name: str
  env: Mapping[str, str]
  cores: Sequence[int] = ()
  flags: Sequence[str] = ()


class LocalExecutor:
  """Runs trials on this machine, one for each share of its devices.

  Args:
    launcher: The path of `launch.py`.
    parallel_trials: The number of shares; None: one for each accelerator.

  Raises:
    UserError: The machine has fewer devices.
  """

  def __init__(self, launcher: str, parallel_trials: int | None, **unused: Any):
    del unused
    self._program = [sys.executable, launcher]
    self._shares = device_shares(parallel_trials)
    self._running: dict[int, Process] = {}
    self.description = '; '.join(share.name for share in self._shares)

  def connect(self) -> None:
    """Does nothing: this machine needs no connection."""

  def command(self, flags: Sequence[str], index: int) -> str:
    """Returns the command line that a user would type for a trial."""
    share = self._shares[index % len(self._shares)]
    variables = [f'{key}={value}' for key, value in share.env.items()]
    pinned = ['taskset', '-c', ','.join(map(str, share.cores))]
    full = [*self._program, *flags, *share.flags]
    return shlex.join([*variables, *(pinned if share.cores else ()), *full])

  def parallel(self) -> int:
    """Returns the number of trials that can run at the same time."""
    return len(self._shares)

  def start(self, flags: Sequence[str], workdir: str, log: Path) -> Process:
    """Starts a trial on a free share."""
    busy = [i for i, process in self._running.items() if process.is_running()]
    index = next(i for i in range(len(self._shares)) if i not in busy)
    share = self._shares[index]
    self._running[index] = Process(
      [*self._program, *flags, *share.flags],
      workdir,
      log,
      env={**os.environ, 'PYTHONUNBUFFERED': '1', **share.env},
      cores=share.cores,
      place=share.name,
    )
    return self._running[index]


def device_shares(count: int | None) -> list[DeviceShare]:
  """Divides the machine's GPUs, else its TPU chips, else its cores."""
  if os.environ.get('JAX_PLATFORMS') != 'cpu':
    for kind, devices, share in (
      ('GPU', gpus(), _gpu_share),
      ('chip', chips(), _chip_share),
    ):
      if devices:
        parallel = len(devices) if count is None else count
        if parallel > len(devices):
          raise UserError(
            f'--parallel_trials={parallel} needs as many {kind}s, but this '
            f'machine has {len(devices)}'
          )
        size = len(devices) // parallel
        starts = range(0, size * parallel, size)
        parts = [devices[first : first + size] for first in starts]
        return (
          [DeviceShare('all', {})] if parallel == 1 else list(map(share, parts))
        )
  parallel = count or 1
  cores = _cores()
  if parallel == 1 or not cores:
    return [DeviceShare('all cores', {})] * parallel
  parts = [
    cores[i::parallel] or [cores[i % len(cores)]] for i in range(parallel)
  ]
  return [
    DeviceShare(f'cores {_comma_separated(part)}', {}, part) for part in parts
  ]


def _comma_separated(numbers: Sequence[object]) -> str:
  return ','.join(map(str, numbers))


def _cores() -> list[int]:
  """Returns the cores that this process may use; empty: unknown."""
  affinity = getattr(os, 'sched_getaffinity', lambda _: ())
  return sorted(affinity(0))


def gpus() -> list[str]:
  """Returns the NVIDIA GPUs, as CUDA_VISIBLE_DEVICES names them."""
  allowed = os.environ.get('CUDA_VISIBLE_DEVICES')
  if allowed is not None:
    return [name for name in allowed.split(',') if name not in ('', '-1')]
  return _numbers_in('/dev', r'nvidia(\d+)')


def chips() -> list[str]:
  """Returns the TPU chips of this host, as TPU_VISIBLE_CHIPS names them."""
  allowed = os.environ.get('TPU_VISIBLE_CHIPS')
  if allowed is not None:
    return [name for name in allowed.split(',') if name]
  found = _numbers_in('/dev', r'accel(\d+)') or _numbers_in(
    '/dev/vfio', r'(\d+)'
  )
  return list(map(str, range(len(found))))


def _numbers_in(folder: str, pattern: str) -> list[str]:
  names = os.listdir(folder) if os.path.isdir(folder) else []
  found = [re.fullmatch(pattern, name) for name in names]
  return sorted((match[1] for match in found if match), key=int)


def _gpu_share(part: Sequence[str]) -> DeviceShare:
  env = {'CUDA_VISIBLE_DEVICES': _comma_separated(part)}
  return DeviceShare(f'GPU {_comma_separated(part)}', env)


def _chip_share(part: Sequence[str]) -> DeviceShare:
  if len(part) not in CHIPS:
    raise UserError(
      f'{len(part)} chips for each trial: libtpu supports '
      f'{_comma_separated(CHIPS)}'
    )
  env = {
    'TPU_VISIBLE_CHIPS': _comma_separated(part),
    'TPU_CHIPS_PER_PROCESS_BOUNDS': CHIPS[len(part)],
    'TPU_PROCESS_BOUNDS': '1,1,1',
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  }
  # Processes of one host would otherwise find each other and form one run.
  flags = [
    f'--coordinator_address=localhost:{_free_port()}',
    '--num_processes=1',
    '--process_id=0',
  ]
  return DeviceShare(f'chip {_comma_separated(part)}', env, flags=flags)


def _free_port() -> int:
  with socket.socket() as probe:
    probe.bind(('localhost', 0))
    return probe.getsockname()[1]
