"""How fast an experiment trains here, and what holds it up."""

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

from gan_jax import config as cfg
from gan_jax import data, devices, games
from gan_jax.data.order import Stream
from gan_jax.data.source import Source
from gan_jax.models import PRECISIONS
from gan_jax.modes.dispatch_timer import (
  LONG_SECONDS,
  Runner,
  course,
  creator,
  feed_dispatches,
  flops_of,
  generate,
  images_in,
  loaded,
  prepare,
  seconds_of,
  warm_up,
)
from gan_jax.training import optimizers
from gan_jax.training.check import check_config
from gan_jax.training.feed import index_batches
from gan_jax.training.sampler import first_examples
from gan_jax.training.schedule import make_schedule
from gan_jax.training.summary import describe_schedule, duration, sizes_of

WINDOWS, WINDOW_SECONDS = 5, 1.0
# Lengths of a dispatch that are tried, of iterations that are shorter than
# this; a longer one is not recommended for less than this share of speed.
LENGTHS, SHORT_SECONDS, WORTH = (1, 4, 16), 1.0, 0.03
FED = 'fed by the loader'
MATMUL_SIZE = {'cpu': 2048, 'gpu': 8192, 'tpu': 8192}


def benchmark(config: ConfigDict, workdir: str | Path) -> None:
  """Prints a schedule, and the same as one line of JSON; writes nothing.

  The step is timed on generated uint8 images, as the schedule's last segment
  has it, and where there are several stages, each; the loader, and the step
  that it feeds, where the data is there.
  """
  del workdir
  check_config(config)
  with devices.compiled_anew():
    figures = _measure(config.copy_and_resolve_references())
  if devices.is_main():
    _show(config, figures)
    print(json.dumps(figures))


def _measure(config: ConfigDict) -> dict[str, Any]:
  source = data.make(config) if data.is_there(config) else None
  if source is not None and source.draw is not None:
    source = None  # nothing is loaded
  generated = generate(config)
  on_device = cfg.changed(config, 'data.max_device_bytes', 2**62)
  cold = prepare(on_device, generated).compile_seconds
  jax.clear_caches()
  bench = prepare(on_device, generated)
  own = Runner(bench, feed_dispatches(on_device, generated))
  seconds = warm_up(own)
  memory = devices.peak_memory() or bench.program_bytes
  speeds = _race(
    {
      config.steps_per_dispatch: own,
      **_of_other_lengths(on_device, generated, seconds),
      **_fed_by_loader(config, source),
    }
  )
  speed, fed = speeds[config.steps_per_dispatch], speeds.pop(FED, None)
  share = None if fed is None else max(0.0, 1 - fed / speed)
  per_image = flops_of(on_device, generated) / bench.images
  matmul = _matmul_flops_per_second(config.precision)
  figures = {
    'images_per_second': speed,
    'devices': devices.describe(),
    'parallel': config.parallel,
    'precision': config.precision,
    'compile_seconds_cold': cold,
    'compile_seconds_warm': bench.compile_seconds,
    'flops_per_image': per_image,
    'flops_per_second': per_image * speed,
    'matmul_flops_per_second': matmul,
    'share_of_matmul': per_image * speed / matmul,
    'peak_memory_bytes': memory,
    **_of_lengths(config.steps_per_dispatch, speeds),
    **_of_loader(config, source, share),
    'stages': _stages(on_device, generated),
  }
  return _rounded(figures)


def _rounded(figures: Any) -> Any:
  """To four digits, which is more than a repetition would give."""
  if isinstance(figures, dict):
    return {name: _rounded(value) for name, value in figures.items()}
  if isinstance(figures, list):
    return [_rounded(value) for value in figures]
  return float(f'{figures:.4g}') if isinstance(figures, float) else figures


def _race(runners: Mapping[Any, Runner]) -> dict[Any, float]:
  """Images/s of each: the median of windows of a second, in turns."""
  one = {name: warm_up(runner) for name, runner in runners.items()}
  counts = {
    name: devices.of_main(max(1, round(WINDOW_SECONDS / seconds)))
    for name, seconds in one.items()
  }
  windows = 1 if max(one.values()) > LONG_SECONDS else WINDOWS
  times: dict[Any, list[float]] = {name: [] for name in runners}
  for _ in range(devices.of_main(windows)):
    for name, runner in runners.items():
      times[name].append(seconds_of(runner, counts[name]))
  for runner in runners.values():
    runner.fed.close()
  return {
    name: counts[name] * runner.bench.images / statistics.median(times[name])
    for name, runner in runners.items()
  }


def _stages(config: ConfigDict, source: Source) -> list[dict[str, Any]] | None:
  """Each row of the schedule, where there are several stages."""
  schedule = make_schedule(config)
  if not schedule.stage_ends:
    return None
  batch = first_examples(source, Stream(config.seed, source.size))
  shapes = jax.eval_shape(lambda: batch)
  tx = optimizers.make(config.optimizer.to_dict())
  create = creator(games.make(config), tx, config, source)
  gen_vars = jax.eval_shape(create).variables.gen
  sizes = sizes_of(config, schedule, gen_vars, shapes)
  measured: dict[Any, dict[str, Any]] = {}
  for row in schedule.segments:
    signature = schedule.signature(row.first_step)
    if signature not in measured:
      measured[signature] = _stage(config, source, row.first_step)
  several = []
  for row, size in zip(schedule.segments, sizes, strict=True):
    found = measured[schedule.signature(row.first_step)]
    images = row.steps * row.segment.images_per_step
    about = {'stage': row.segment.stage, 'makes': size, 'images': images}
    hours = images / found['images_per_second'] / 3600
    several.append({**about, **found, 'hours': hours})
  return several


def _stage(config: ConfigDict, source: Source, first: int) -> dict[str, Any]:
  """The dispatch that begins at `first`: timed for a second, or once."""
  bench = prepare(config, source, first)
  runner = Runner(bench, feed_dispatches(config, source, first))
  warm_up(runner)
  count, seconds = 0, 0.0
  while devices.of_main(int(seconds < WINDOW_SECONDS)):
    count, seconds = count + 1, seconds + seconds_of(runner, 1)
  runner.fed.close()
  return {
    'images_per_second': count * bench.images / seconds,
    'flops_per_image': flops_of(config, source, first) / bench.images,
    'program_bytes': bench.program_bytes,
    'compile_seconds': bench.compile_seconds,
  }


def _matmul_flops_per_second(precision: str) -> float:
  """What the devices reach in a large product, at best, all at once."""
  size = MATMUL_SIZE.get(jax.default_backend(), max(MATMUL_SIZE.values()))
  make = lambda: jnp.full((size, size), 1 / size, PRECISIONS[precision])
  x = devices.one_on_each(make)
  product = jax.jit(lambda x: jnp.matmul(x, x))
  times = []
  for _ in range(10):
    start = time.perf_counter()
    jax.block_until_ready(product(x))
    times.append(time.perf_counter() - start)
  return 2 * len(x) * size**3 / min(times)


def _of_other_lengths(
  config: ConfigDict, source: Source, seconds: float
) -> dict[Any, Runner]:
  """Other lengths of a dispatch, ready to be timed; none if steps are long.

  `seconds`: of a dispatch of the configured length.
  """
  runners: dict[Any, Runner] = {}
  long = seconds > SHORT_SECONDS * config.steps_per_dispatch
  if devices.of_main(int(long)):
    return runners
  for length in LENGTHS:
    if length != config.steps_per_dispatch:
      tried = cfg.changed(config, 'steps_per_dispatch', length)
      fed = feed_dispatches(tried, source)
      runners[length] = Runner(prepare(tried, source), fed)
  return runners


def _fed_by_loader(
  config: ConfigDict, source: Source | None
) -> dict[Any, Runner]:
  """As the run would be; nothing where the data is not there."""
  if source is None:
    return {}
  return {FED: Runner(prepare(config, source), feed_dispatches(config, source))}


def _of_lengths(configured: int, speeds: dict[int, float]) -> dict[str, Any]:
  """How speed depends on the iterations in a dispatch."""
  enough = (1 - WORTH) * max(speeds.values())
  return {
    'steps_per_dispatch': configured,
    'steps_per_dispatch_recommended': min(
      length for length in speeds if speeds[length] >= enough
    ),
    'images_per_second_by_steps_per_dispatch': {
      str(length): speeds[length] for length in sorted(speeds)
    },
  }


def _of_loader(
  config: ConfigDict, source: Source | None, share: float | None
) -> dict[str, Any]:
  """What the loader makes by itself, and the share of time waited for it."""
  alone = {}
  if source is not None:
    streamed = cfg.changed(config, 'data.max_device_bytes', 0)
    alone = {
      'as configured' if workers is None else str(workers): _loaded(
        cfg.changed(streamed, 'data.workers', workers), source
      )
      for workers in (None, 0, 1, 2)
    }
  return {
    'loader_images_per_second': alone.pop('as configured', None),
    'loader_images_per_second_by_workers': alone or None,
    'share_waiting_for_input': share,
  }


def _loaded(config: ConfigDict, source: Source) -> float:
  schedule, first = course(config)
  fed = index_batches(config, source, schedule, first, attempt=0)
  return loaded(fed, images_in(schedule, first), 2 * WINDOW_SECONDS)


def _show(config: ConfigDict, figures: dict[str, Any]) -> None:
  figures = dict(figures)
  stages = figures.pop('stages')
  if stages:
    _show_stages(config, stages)
  schedule = rich.table.Table(show_header=False, box=None)
  for name, value in figures.items():
    schedule.add_row(name.replace('_', ' '), _written(value))
  rich.console.Console().print(schedule)


def _show_stages(config: ConfigDict, stages: list[dict[str, Any]]) -> None:
  of = lambda name: [stage[name] for stage in stages]
  more = {
    'images/s': [f'{x:,.4g}' for x in of('images_per_second')],
    'GFLOP/image': [f'{x / 1e9:,.4g}' for x in of('flops_per_image')],
    'GB': [f'{x / 1e9:,.2f}' for x in of('program_bytes')],
    'compiling, s': [f'{x:.0f}' for x in of('compile_seconds')],
    'time': [duration(3600 * x) for x in of('hours')],
  }
  print(describe_schedule(make_schedule(config), of('makes'), more))
  print(f'All together: {duration(3600 * sum(of("hours")))}')


def _written(value: Any) -> str:
  if value is None:
    return 'not measured: the data is not there'
  if isinstance(value, dict):
    return ', '.join(f'{key}: {_written(x)}' for key, x in value.items())
  if isinstance(value, float) and value >= 1e6:
    return f'{value / 1e9:,.4g} x 10^9'
  return f'{value:,.4g}' if isinstance(value, float) else str(value)
