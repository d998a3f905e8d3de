"""Describes this machine: its devices and the versions of the libraries.

  python -m benchmarks.machine

A program that starts others calls `ask`, which uses a separate process: a
process that queries the accelerators reserves their memory.
"""

import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LIBRARIES = 'jax', 'jaxlib', 'flax', 'optax', 'numpy'


def describe() -> dict[str, Any]:
  """Returns {'hardware': text, 'versions': {name: version}}."""
  import jax

  from gan_jax import devices
  from gan_jax.metrics.scores import protocol_digest
  from gan_jax.training import peers

  is_cpu = jax.default_backend() == 'cpu'
  versions = {name: metadata.version(name) for name in LIBRARIES}
  sources = protocol_digest(peers.versions())
  return {
    'hardware': _cpu() if is_cpu else devices.describe(),
    'versions': {
      'python': platform.python_version(),
      **versions,
      'gan_jax': f'sources {sources[:8]}',
    },
  }


def _cpu() -> str:
  """Returns the number of usable cores and their model: 2 cores of AMD EPYC."""
  affinity = getattr(os, 'sched_getaffinity', lambda _: range(os.cpu_count()))
  count = len(affinity(0))
  info, model = Path('/proc/cpuinfo'), platform.processor()
  for line in info.read_text().splitlines() if info.exists() else ():
    if line.startswith('model name'):
      model = line.partition(':')[2].strip()
  return f'{count} core{"s" * (count > 1)} of {model or platform.machine()}'


def ask() -> dict[str, Any]:
  """Returns `describe()` of a fresh process."""
  command = [sys.executable, '-m', 'benchmarks.machine']
  done = subprocess.run(
    command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
  )
  return json.loads(done.stdout.splitlines()[-1])


if __name__ == '__main__':
  print(json.dumps(describe()))
