"""Trials on this machine, several at a time, each with its own devices.

JAX is not asked what there is: it would take the accelerator, which the trials
are to have.
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
from gan_jax.sweep.process import Place, Process

# The shape that so many neighbouring chips of a host have (libtpu).
CHIPS = {1: '1,1,1', 2: '1,2,1', 4: '2,2,1', 8: '2,4,1'}


class Share(NamedTuple):
  """What one trial has of the machine.

  Attributes:
    name: For the user.
    env: Variables that say so.
    cores: Those that it may use; none: all.
    flags: More of launch.py's.
  """

  name: str
  env: Mapping[str, str]
  cores: Sequence[int] = ()
  flags: Sequence[str] = ()


def places(
  launcher: str, parallel_trials: int | None, **unused: Any
) -> list[Place]:
  """Places for so many trials at a time; None: one for each accelerator.

  Raises:
    UserError: There are fewer devices.
  """
  del unused
  return [_place(launcher, share) for share in shares(parallel_trials)]


def _place(launcher: str, share: Share) -> Place:
  program = [sys.executable, launcher]

  def command(flags: Sequence[str]) -> str:
    variables = [f'{key}={value}' for key, value in share.env.items()]
    pinned = ['taskset', '-c', ','.join(map(str, share.cores))]
    given = [*program, *flags, *share.flags]
    return shlex.join([*variables, *(pinned if share.cores else ()), *given])

  def start(flags: Sequence[str], log: Path) -> Process:
    env = {**os.environ, 'PYTHONUNBUFFERED': '1', **share.env}
    return Process([*program, *flags, *share.flags], log, env, share.cores)

  return Place(share.name, command, start)


def shares(count: int | None) -> list[Share]:
  """The machine in so many parts: its GPUs, else its chips, else its cores."""
  if os.environ.get('JAX_PLATFORMS') != 'cpu':
    for kind, devices, share in (
      ('GPU', gpus(), _of_gpus),
      ('chip', chips(), _of_chips),
    ):
      if devices:
        wanted = len(devices) if count is None else count
        if wanted > len(devices):
          raise UserError(
            f'--parallel_trials={wanted}, and there are {len(devices)} '
            f'{kind}s: a trial is to have one at least'
          )
        size = len(devices) // wanted
        starts = range(0, size * wanted, size)
        parts = [devices[first : first + size] for first in starts]
        return [Share('all', {})] if wanted == 1 else list(map(share, parts))
  wanted = count or 1
  cores = _cores()
  if wanted == 1 or not cores:
    return [Share('all cores', {})] * wanted
  parts = [cores[i::wanted] or [cores[i % len(cores)]] for i in range(wanted)]
  return [Share(f'cores {_listed(part)}', {}, part) for part in parts]


def _listed(numbers: Sequence[object]) -> str:
  return ','.join(map(str, numbers))


def _cores() -> list[int]:
  """Those that we may use; none where the system does not tell."""
  ask = getattr(os, 'sched_getaffinity', lambda _: ())
  return sorted(ask(0))


def gpus() -> list[str]:
  """NVIDIA GPUs, as CUDA_VISIBLE_DEVICES calls them."""
  allowed = os.environ.get('CUDA_VISIBLE_DEVICES')
  if allowed is not None:
    return [name for name in allowed.split(',') if name not in ('', '-1')]
  return _numbered('/dev', r'nvidia(\d+)')


def chips() -> list[str]:
  """TPU chips of this host, as TPU_VISIBLE_CHIPS calls them."""
  allowed = os.environ.get('TPU_VISIBLE_CHIPS')
  if allowed is not None:
    return [name for name in allowed.split(',') if name]
  found = _numbered('/dev', r'accel(\d+)') or _numbered('/dev/vfio', r'(\d+)')
  return list(map(str, range(len(found))))


def _numbered(folder: str, pattern: str) -> list[str]:
  names = os.listdir(folder) if os.path.isdir(folder) else []
  found = [re.fullmatch(pattern, name) for name in names]
  return sorted((match[1] for match in found if match), key=int)


def _of_gpus(part: Sequence[str]) -> Share:
  env = {'CUDA_VISIBLE_DEVICES': _listed(part)}
  return Share(f'GPU {_listed(part)}', env)


def _of_chips(part: Sequence[str]) -> Share:
  if len(part) not in CHIPS:
    raise UserError(
      f'{len(part)} chips a trial: it is to have {_listed(CHIPS)} of them'
    )
  env = {
    'TPU_VISIBLE_CHIPS': _listed(part),
    'TPU_CHIPS_PER_PROCESS_BOUNDS': CHIPS[len(part)],
    'TPU_PROCESS_BOUNDS': '1,1,1',
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  }
  # Each is a run by itself: they are not to find each other by the host.
  alone = [
    f'--coordinator_address=localhost:{_free_port()}',
    '--num_processes=1',
    '--process_id=0',
  ]
  return Share(f'chip {_listed(part)}', env, flags=alone)


def _free_port() -> int:
  with socket.socket() as probe:
    probe.bind(('localhost', 0))
    return probe.getsockname()[1]
