"""One measurement of benchmarks/accelerator.py, in a process of its own.

  python -m benchmarks.measurement machine
  python -m benchmarks.measurement experiment FILE.py PRECISION LENGTHS
  python -m benchmarks.measurement stages FILE.py PRECISION
  python -m benchmarks.measurement profile FILE.py PRECISION LENGTH

It prints one line of JSON. LENGTHS are the values of steps_per_dispatch that
are timed besides the experiment's: 1,4,16.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

import gan_jax
from benchmarks import machine
from benchmarks.kernels import read_trace, top_kernels
from gan_jax import compile_cache, data, devices
from gan_jax import config as cfg
from gan_jax.errors import UserError
from gan_jax.models import PRECISIONS
from gan_jax.modes import benchmark
from gan_jax.modes.dispatch_timer import (
  Workload,
  compile_dispatch,
  dispatch_batches,
  generated_source,
  time_dispatches,
  warm_up,
)
from gan_jax.training.check import check_config
from gan_jax.training.schedule import make_schedule

# Shorter windows than those of --mode=benchmark.
WINDOWS, WINDOW_SECONDS = 3, 0.5
# Bytes of the array whose copy measures the bandwidth.
COPIED_BYTES = {'cpu': 2**26, 'gpu': 2**31, 'tpu': 2**31}
PROFILED_SECONDS = 0.5


def describe(size: str = 'full') -> dict[str, Any]:
  """Describes the machine, with the speed of its products and its memory.

  All devices together are measured.
  """
  if size == 'tiny':
    shorten()
  figures = {
    f'matmul_flops_per_second_{precision}': benchmark.matmul_flops_per_second(
      precision
    )
    for precision in PRECISIONS
  }
  return benchmark.rounded(
    {
      **machine.describe(),
      **figures,
      'memory_bytes_per_second': _bandwidth(),
      'memory_bytes': devices.device_memory_bytes(),
    }
  )


def shorten() -> None:
  """Shortens all measurements, to only check that they run."""
  global WINDOW_SECONDS, PROFILED_SECONDS
  WINDOW_SECONDS = PROFILED_SECONDS = 0.02
  benchmark.MATMUL_SIZE = dict.fromkeys(benchmark.MATMUL_SIZE, 256)
  COPIED_BYTES.update(dict.fromkeys(COPIED_BYTES, 2**20))


def _bandwidth() -> float:
  """Measures bytes/s, read and written, of the sum of an array and a number."""
  size = COPIED_BYTES[jax.default_backend()] // 4
  x = devices.stack_per_device(lambda: jnp.zeros(size, jnp.float32))
  add = jax.jit(lambda x: x + 1)
  times = []
  for _ in range(10):
    start = time.perf_counter()
    jax.block_until_ready(add(x))
    times.append(time.perf_counter() - start)
  return 2 * x.nbytes / min(times)


def _config(experiment: str, precision: str) -> ConfigDict:
  if experiment.endswith('tiny'):
    shorten()
  config = gan_jax.experiment(experiment, precision=precision)
  check_config(config)
  return config.copy_and_resolve_references()


def experiment(name: str, precision: str, lengths: str) -> dict[str, Any]:
  """Times an experiment as --mode=benchmark does, on generated images.

  The wait for input is that of images in the memory of the host, which are
  sent to the device at each step.
  """
  config = _config(name, precision)
  benchmark.WINDOWS, benchmark.WINDOW_SECONDS = WINDOWS, WINDOW_SECONDS
  benchmark.LENGTHS = tuple(int(x) for x in lengths.split(',') if x)
  streamed = cfg.changed(config, 'data.max_device_bytes', 0)
  source = None if data.toy_of(config) else generated_source(config)
  with compile_cache.temporary():
    figures = benchmark.measure(streamed, source)
  speeds = figures['images_per_second_by_steps_per_dispatch']
  best = max(speeds, key=speeds.get)
  scale = speeds[best] / figures['images_per_second']
  at_best = {
    name: scale * figures[name]
    for name in ('images_per_second', 'flops_per_second', 'share_of_matmul')
  }
  return {
    'batch_size': config.batch_size,
    'num_stages': len(make_schedule(config).stage_ends) + 1,
    **figures,
    'steps_per_dispatch_best': int(best),
    **benchmark.rounded(at_best),
  }


def stages(name: str, precision: str) -> dict[str, Any]:
  """Times each stage of a progressive experiment."""
  with compile_cache.temporary():
    return {'stages': benchmark.time_stages(_config(name, precision))}


def profile(name: str, precision: str, length: str) -> dict[str, Any]:
  """Lists the kernels of an experiment that take longest."""
  config = _config(name, precision)
  for key, value in (
    ('steps_per_dispatch', int(length)), ('data.max_device_bytes', 2**62)
  ):  # fmt: skip
    config = cfg.changed(config, key, value)
  source = generated_source(config)
  dispatch = compile_dispatch(config, source)
  workload = Workload(dispatch, dispatch_batches(config, source))
  count = max(1, round(PROFILED_SECONDS / warm_up(workload)))
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      seconds = time_dispatches(workload, count)
    listed = top_kernels(read_trace(Path(folder)))
  workload.batches.close()
  if not listed:
    raise UserError('the trace lists no kernels: CPUs have none')
  return {
    'seconds': seconds,
    'iterations': count * int(length),
    'kernels': [kernel._asdict() for kernel in listed],
  }


KINDS: dict[str, Callable[..., dict[str, Any]]] = {
  'machine': describe,
  'experiment': experiment,
  'stages': stages,
  'profile': profile,
}


def main(kind: str, *words: str) -> None:
  """Prints the figures of a measurement."""
  try:
    print(json.dumps(KINDS[kind](*words)), flush=True)
  except UserError as error:
    sys.exit(f'{" ".join(str(error).split())}')


if __name__ == '__main__':
  main(*sys.argv[1:])
