"""Compiles a dispatch of an experiment and times it."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from gan_jax import data, devices, games
from gan_jax.data.loader import fetch_all
from gan_jax.data.on_device import make_reader
from gan_jax.data.order import stream_of
from gan_jax.data.source import Source, in_memory, joined
from gan_jax.games.game import Game
from gan_jax.modes.flops import flops
from gan_jax.pair import Pair
from gan_jax.training import optimizers
from gan_jax.training.dispatch import train_dispatch
from gan_jax.training.feed import index_batch, index_batches, is_resident
from gan_jax.training.sampler import first_examples
from gan_jax.training.schedule import Schedule, make_schedule
from gan_jax.training.setup import create_state, on_devices
from gan_jax.training.state import State
from gan_jax.training.strategies import (
  limit_in_flight,
  make_strategy,
  prefetch,
)

# Size limits of the generated data: number of images, and pixels in total.
MAX_IMAGES, MAX_PIXELS = 1024, 2**26
# Dispatches that run before any is timed.
WARM_UP_DISPATCHES = 2
# A dispatch longer than this is warmed up and timed only once.
LONG_SECONDS = 5.0


class TimedDispatch(NamedTuple):
  """A compiled dispatch, ready to be timed.

  Attributes:
    images: The real images shown to D in the dispatch.
    compile_seconds: The time to trace and compile the dispatch.
    program_bytes: The device memory of the program, without the data set.
    start: (index batch) -> None: starts the dispatch.
    wait: () -> None: waits for all started dispatches.
  """

  images: int
  compile_seconds: float
  program_bytes: int
  start: Callable[[Any], None]
  wait: Callable[[], None]


class Workload(NamedTuple):
  """A compiled dispatch, and the index batches that it consumes."""

  dispatch: TimedDispatch
  batches: Generator[Any]


def generated_source(config: ConfigDict) -> Source:
  """Makes noise images of the experiment's shape, with labels if it has any."""
  names = data.source_names(config)
  parts = {name: _generated_part(config, name) for name in names}
  return joined(parts) if len(parts) > 1 else parts['source']


def _generated_part(config: ConfigDict, name: str) -> Source:
  rng = np.random.default_rng(0)
  size = config.data.get('load_resolution') or config.data.resolution
  count = min(MAX_IMAGES, max(1, MAX_PIXELS // size**2))
  shape = (count, size, size, config.data.channels)
  examples = {
    entry: rng.integers(0, 256, shape, np.uint8)
    for entry in data.image_entries(config, name)
  }
  if classes := config.data.get('classes', 0):
    examples['labels'] = rng.integers(0, classes, count, np.int32)
  return in_memory(examples)


def endless_schedule(
  config: ConfigDict, first: int | None = None
) -> tuple[Schedule, int]:
  """Returns a schedule that ends in the segment of a step, and the step.

  The segment is long enough to be timed.

  `first` None: the first step of the last segment.
  """
  schedule = make_schedule(config)
  if first is None:
    first = schedule.segments[-1].first_step
  index = schedule.segments.index(schedule.segment_at(first))
  last = schedule.segments[index]
  dispatches = 2**28 // last.segment.images_per_step
  last = dataclasses.replace(
    last, steps=last.steps + dispatches * schedule.steps_per_dispatch
  )
  segments = (*schedule.segments[:index], last)
  return dataclasses.replace(schedule, segments=segments), first


def images_per_dispatch(schedule: Schedule, first: int) -> int:
  """Counts the reals shown to D in the dispatch that begins at `first`."""
  return schedule.images(first + schedule.steps_per_dispatch) - schedule.images(
    first
  )


def dispatch_batches(
  config: ConfigDict, source: Source, first: int | None = None
) -> Generator[Any]:
  """Yields the index batches of a run, prefetched as in training."""
  schedule, first = endless_schedule(config, first)
  strategy = make_strategy(config.parallel)
  return prefetch(
    strategy.shard, index_batches(config, source, schedule, first, attempt=0)
  )


def compile_dispatch(
  config: ConfigDict, source: Source, first: int | None = None
) -> TimedDispatch:
  """Compiles the dispatch that begins at `first`.

  `first` None: the first dispatch of the last segment.
  """
  strategy = make_strategy(config.parallel)
  game = games.make(config, strategy.axis_name)
  tx = optimizers.make(config.optimizer.to_dict())
  schedule, first = endless_schedule(config, first)
  phases = schedule.dispatch(first)
  create = make_create_state(game, tx, config, source)
  state = strategy.shard_state(devices.create(create))
  resident = is_resident(config, source)
  dataset = on_devices(strategy, fetch_all(source) if resident else {})
  frozen = on_devices(strategy, game.frozen())
  batches = dispatch_batches(config, source, first)
  args = state, dataset, next(batches), phases, frozen
  batches.close()
  reader = make_reader(config, source)
  start = time.perf_counter()
  step = strategy.compile(
    partial(train_dispatch, game, tx, reader, strategy.axis_name)
  )
  step = step.lower(*args).compile()
  seconds = time.perf_counter() - start
  memory = step.memory_analysis()
  dataset_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(dataset))
  pending = []

  def start_dispatch(batch: Any) -> None:
    nonlocal state
    state, metrics = step(state, dataset, batch, phases, frozen)
    pending.append(metrics)
    limit_in_flight(pending)

  def wait() -> None:
    jax.block_until_ready(pending)
    pending.clear()

  return TimedDispatch(
    images=images_per_dispatch(schedule, first),
    compile_seconds=seconds,
    program_bytes=memory.temp_size_in_bytes
    + memory.argument_size_in_bytes
    - dataset_bytes,
    start=start_dispatch,
    wait=wait,
  )


def make_create_state(
  game: Game, tx: Pair[Any], config: ConfigDict, source: Source
) -> Callable[[], State]:
  """Makes () -> the initial state, as in training.

  The images of the source are cropped at random in training, to the resolution
  of the networks.
  """
  size = config.data.resolution
  shapes = jax.tree.map(
    lambda x: x[:, :size, :size] if x.ndim == 4 else x,
    first_examples(config, source),
  )
  shapes = jax.eval_shape(lambda: shapes)
  phase = make_schedule(config).phase(0)
  return partial(create_state, game, tx, shapes, phase, config.seed)


def warm_up(workload: Workload) -> float:
  """Warms up; returns the seconds of a dispatch.

  A long dispatch is not repeated: this returns the time of its first run.
  """
  for _ in range(WARM_UP_DISPATCHES):
    seconds = time_dispatches(workload, 1)
    if devices.broadcast_from_main(int(seconds > LONG_SECONDS)):
      return seconds
  return time_dispatches(workload, 1)


def time_dispatches(workload: Workload, dispatches: int) -> float:
  """Returns the seconds of this many dispatches."""
  start = time.perf_counter()
  for batch in itertools.islice(workload.batches, dispatches):
    workload.dispatch.start(batch)
  workload.dispatch.wait()
  return time.perf_counter() - start


def loader_speed(batches: Generator[Any], images: int, seconds: float) -> float:
  """Measures the images per second of the loader alone, and closes it.

  Closing takes a second, once in a run; it is not timed.

  Args:
    batches: The loader's.
    images: The images in one item of `batches`.
    seconds: The length of the measurement.
  """
  for _ in range(WARM_UP_DISPATCHES):
    next(batches)
  start, count = time.perf_counter(), 0
  while time.perf_counter() < start + seconds:
    next(batches)
    count += 1
  elapsed = time.perf_counter() - start
  batches.close()
  return count * images / elapsed


def flops_per_dispatch(
  config: ConfigDict, source: Source, first: int | None = None
) -> int:
  """Counts the FLOPs of a dispatch, on all devices together."""
  game = games.make(config)
  tx = optimizers.make(config.optimizer.to_dict())
  schedule, first = endless_schedule(config, first)
  stream = stream_of(source, config.seed)
  return flops(
    partial(train_dispatch, game, tx, make_reader(config, source), None),
    jax.eval_shape(make_create_state(game, tx, config, source)),
    fetch_all(source),
    index_batch(stream, None, schedule, lambda n: slice(n), first),
    schedule.dispatch(first),
    game.frozen(),
  )
