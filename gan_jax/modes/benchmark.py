"""Measures the training speed of an experiment, and what limits the speed."""

import json
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import rich.console
import rich.table
from ml_collections import ConfigDict

from gan_jax import compile_cache, data, devices, games
from gan_jax import config as cfg
from gan_jax.data.source import Source
from gan_jax.models import PRECISIONS
from gan_jax.modes.dispatch_timer import (
  LONG_SECONDS,
  Workload,
  compile_dispatch,
  dispatch_batches,
  endless_schedule,
  flops_per_dispatch,
  generated_source,
  images_per_dispatch,
  loader_speed,
  make_create_state,
  time_dispatches,
  warm_up,
)
from gan_jax.training import optimizers
from gan_jax.training.check import check_config
from gan_jax.training.feed import index_batches
from gan_jax.training.sampler import first_examples
from gan_jax.training.schedule import make_schedule
from gan_jax.training.summary import describe_schedule, duration, sizes_of

WINDOWS, WINDOW_SECONDS = 5, 1.0
# Further values of steps_per_dispatch that are timed, unless an iteration takes
# longer than SHORT_SECONDS. A longer dispatch is recommended only if it is
# faster by this share.
LENGTHS, SHORT_SECONDS, MIN_GAIN = (1, 4, 16), 1.0, 0.03
WITH_LOADER = 'with the loader'
MATMUL_SIZE = {'cpu': 2048, 'gpu': 8192, 'tpu': 8192}


def benchmark(config: ConfigDict, workdir: str | Path) -> None:
  """Prints a table, and the same figures as one line of JSON; writes nothing.

  The train step is timed on generated uint8 images, in the schedule's last
  segment and, if the schedule has several stages, in each of them. If the data
  is present, the loader is timed too, alone and with the train step.
  """
  del workdir
  check_config(config)
  with compile_cache.temporary():
    config = config.copy_and_resolve_references()
    source = data.make(config) if data.is_ready(config) else None
    if source is not None and source.draw is not None:
      source = None  # points are drawn on the device, without a loader
    figures = {
      **measure(config, source),
      **_loader_figures(config, source),
      'stages': time_stages(config),
    }
  if devices.is_main():
    _print_figures(config, figures)
    print(json.dumps(figures))


def measure(config: ConfigDict, source: Source | None) -> dict[str, Any]:
  """Measures the train step on generated images.

  The compilation is measured twice, so that an empty cache
  (`compile_cache.temporary`) gives the cold and the warm time.

  Args:
    config: The experiment's, resolved.
    source: The data with which the step is timed too, as the run would read
      them; None: it is timed without a loader only.
  """
  generated = generated_source(config)
  on_device = cfg.changed(config, 'data.max_device_bytes', 2**62)
  cold = compile_dispatch(on_device, generated).compile_seconds
  jax.clear_caches()
  dispatch = compile_dispatch(on_device, generated)
  configured = Workload(dispatch, dispatch_batches(on_device, generated))
  seconds = warm_up(configured)
  memory = devices.peak_memory() or dispatch.program_bytes
  speeds = _race(
    {
      config.steps_per_dispatch: configured,
      **_other_lengths(on_device, generated, seconds),
      **_with_loader(config, source),
    }
  )
  speed = speeds[config.steps_per_dispatch]
  with_loader = speeds.pop(WITH_LOADER, None)
  share = None if with_loader is None else max(0.0, 1 - with_loader / speed)
  per_image = flops_per_dispatch(on_device, generated) / dispatch.images
  matmul = matmul_flops_per_second(config.precision)
  figures = {
    'images_per_second': speed,
    'devices': devices.describe(),
    'parallel': config.parallel,
    'precision': config.precision,
    'compile_seconds_cold': cold,
    'compile_seconds_warm': dispatch.compile_seconds,
    'flops_per_image': per_image,
    'flops_per_second': per_image * speed,
    'matmul_flops_per_second': matmul,
    'share_of_matmul': per_image * speed / matmul,
    'peak_memory_bytes': memory,
    **_length_figures(config.steps_per_dispatch, speeds),
    'share_waiting_for_input': share,
  }
  return rounded(figures)


def rounded(figures: Any) -> Any:
  """Rounds to four digits, which is more than two measurements share."""
  if isinstance(figures, dict):
    return {name: rounded(value) for name, value in figures.items()}
  if isinstance(figures, list):
    return [rounded(value) for value in figures]
  return float(f'{figures:.4g}') if isinstance(figures, float) else figures


def _race(workloads: Mapping[Any, Workload]) -> dict[Any, float]:
  """Returns the images/s of each, the median of windows timed in turns."""
  seconds_each = {
    name: warm_up(workload) for name, workload in workloads.items()
  }
  counts = {
    name: devices.broadcast_from_main(max(1, round(WINDOW_SECONDS / seconds)))
    for name, seconds in seconds_each.items()
  }
  windows = 1 if max(seconds_each.values()) > LONG_SECONDS else WINDOWS
  times: dict[Any, list[float]] = {name: [] for name in workloads}
  for _ in range(devices.broadcast_from_main(windows)):
    for name, workload in workloads.items():
      times[name].append(time_dispatches(workload, counts[name]))
  for workload in workloads.values():
    workload.batches.close()
  return {
    name: counts[name]
    * workload.dispatch.images
    / statistics.median(times[name])
    for name, workload in workloads.items()
  }


def time_stages(config: ConfigDict) -> list[dict[str, Any]] | None:
  """Measures each segment of the schedule; None: it has only one stage."""
  schedule = make_schedule(config)
  if not schedule.stage_ends:
    return None
  source = generated_source(config)
  config = cfg.changed(config, 'data.max_device_bytes', 2**62)
  batch = first_examples(config, source)
  shapes = jax.eval_shape(lambda: batch)
  tx = optimizers.make(config.optimizer.to_dict())
  create = make_create_state(games.make(config), tx, config, source)
  gen_vars = jax.eval_shape(create).variables.gen
  sizes = sizes_of(config, schedule, gen_vars, shapes)
  measured: dict[Any, dict[str, Any]] = {}
  for row in schedule.segments:
    signature = schedule.signature(row.first_step)
    if signature not in measured:
      measured[signature] = _time_stage(config, source, row.first_step)
  stages = []
  for row, size in zip(schedule.segments, sizes, strict=True):
    figures = measured[schedule.signature(row.first_step)]
    images = row.steps * row.segment.images_per_step
    about = {'stage': row.segment.stage, 'size': size, 'images': images}
    hours = images / figures['images_per_second'] / 3600
    stages.append({**about, **figures, 'hours': hours})
  return rounded(stages)


def _time_stage(
  config: ConfigDict, source: Source, first: int
) -> dict[str, Any]:
  """Times the dispatch that begins at `first`, for a second, or once."""
  dispatch = compile_dispatch(config, source, first)
  workload = Workload(dispatch, dispatch_batches(config, source, first))
  warm_up(workload)
  count, seconds = 0, 0.0
  while devices.broadcast_from_main(int(seconds < WINDOW_SECONDS)):
    count, seconds = count + 1, seconds + time_dispatches(workload, 1)
  workload.batches.close()
  return {
    'images_per_second': count * dispatch.images / seconds,
    'flops_per_image': flops_per_dispatch(config, source, first)
    / dispatch.images,
    'program_bytes': dispatch.program_bytes,
    'compile_seconds': dispatch.compile_seconds,
  }


def matmul_flops_per_second(precision: str) -> float:
  """Measures the best speed of a large matrix product, on all devices."""
  size = MATMUL_SIZE.get(jax.default_backend(), max(MATMUL_SIZE.values()))
  make = lambda: jnp.full((size, size), 1 / size, PRECISIONS[precision])
  x = devices.stack_per_device(make)
  product = jax.jit(lambda x: jnp.matmul(x, x))
  times = []
  for _ in range(10):
    start = time.perf_counter()
    jax.block_until_ready(product(x))
    times.append(time.perf_counter() - start)
  return 2 * len(x) * size**3 / min(times)


def _other_lengths(
  config: ConfigDict, source: Source, seconds: float
) -> dict[Any, Workload]:
  """Compiles dispatches of other lengths; none if an iteration is long.

  `seconds`: the time of a dispatch of the configured length.
  """
  workloads: dict[Any, Workload] = {}
  is_long = seconds > SHORT_SECONDS * config.steps_per_dispatch
  if devices.broadcast_from_main(int(is_long)):
    return workloads
  for length in LENGTHS:
    if length != config.steps_per_dispatch:
      other = cfg.changed(config, 'steps_per_dispatch', length)
      workloads[length] = Workload(
        compile_dispatch(other, source), dispatch_batches(other, source)
      )
  return workloads


def _with_loader(
  config: ConfigDict, source: Source | None
) -> dict[Any, Workload]:
  """Compiles the run as configured; nothing if the data is not present."""
  if source is None:
    return {}
  return {
    WITH_LOADER: Workload(
      compile_dispatch(config, source), dispatch_batches(config, source)
    )
  }


def _length_figures(
  configured: int, speeds: dict[int, float]
) -> dict[str, Any]:
  """Shows how the speed depends on the iterations in a dispatch."""
  threshold = (1 - MIN_GAIN) * max(speeds.values())
  return {
    'steps_per_dispatch': configured,
    'steps_per_dispatch_recommended': min(
      length for length in speeds if speeds[length] >= threshold
    ),
    'images_per_second_by_steps_per_dispatch': {
      str(length): speeds[length] for length in sorted(speeds)
    },
  }


def _loader_figures(
  config: ConfigDict, source: Source | None
) -> dict[str, Any]:
  """Measures the loader alone."""
  speeds = {}
  if source is not None:
    streamed = cfg.changed(config, 'data.max_device_bytes', 0)
    speeds = {
      'as configured' if workers is None else str(workers): _loader_speed(
        cfg.changed(streamed, 'data.workers', workers), source
      )
      for workers in (None, 0, 1, 2)
    }
  return rounded(
    {
      'loader_images_per_second': speeds.pop('as configured', None),
      'loader_images_per_second_by_workers': speeds or None,
    }
  )


def _loader_speed(config: ConfigDict, source: Source) -> float:
  schedule, first = endless_schedule(config)
  batches = index_batches(config, source, schedule, first, attempt=0)
  images = images_per_dispatch(schedule, first)
  return loader_speed(batches, images, 2 * WINDOW_SECONDS)


def _print_figures(config: ConfigDict, figures: dict[str, Any]) -> None:
  figures = dict(figures)
  stages = figures.pop('stages')
  if stages:
    _print_stages(config, stages)
  table = rich.table.Table(show_header=False, box=None)
  for name, value in figures.items():
    table.add_row(name.replace('_', ' '), _written(value))
  rich.console.Console().print(table)


def _print_stages(config: ConfigDict, stages: list[dict[str, Any]]) -> None:
  column = lambda name: [stage[name] for stage in stages]
  columns = {
    'images/s': [f'{x:,.4g}' for x in column('images_per_second')],
    'GFLOP/image': [f'{x / 1e9:,.4g}' for x in column('flops_per_image')],
    'GB': [f'{x / 1e9:,.2f}' for x in column('program_bytes')],
    'compile, s': [f'{x:.0f}' for x in column('compile_seconds')],
    'training time': [duration(3600 * x) for x in column('hours')],
  }
  print(describe_schedule(make_schedule(config), column('size'), columns))
  print(f'Whole run: {duration(3600 * sum(column("hours")))}')


def _written(value: Any) -> str:
  if value is None:
    return 'not measured: the data is not present'
  if isinstance(value, dict):
    return ', '.join(f'{key}: {_written(x)}' for key, x in value.items())
  if isinstance(value, float) and value >= 1e6:
    return f'{value / 1e9:,.4g} x 10^9'
  if isinstance(value, float) and value >= 1e3:
    return f'{value:,.0f}'
  return f'{value:.4g}' if isinstance(value, float) else str(value)
