"""A dispatch of an experiment, ready to be timed, and what it is fed."""

import itertools
import time
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from gan_jax import config as cfg
from gan_jax import devices, games
from gan_jax.data.loader import fetch_all
from gan_jax.data.on_device import read
from gan_jax.data.order import Stream
from gan_jax.data.source import Source, in_memory
from gan_jax.games.game import Game
from gan_jax.modes.flops import flops
from gan_jax.pair import Pair
from gan_jax.training import optimizers
from gan_jax.training.feed import index_batch, index_batches, is_resident
from gan_jax.training.sampler import first_examples
from gan_jax.training.schedule import Schedule, make_schedule
from gan_jax.training.setup import create_state, on_devices
from gan_jax.training.state import State
from gan_jax.training.step import train_dispatch

# Images that are generated: so many, and of so many pixels together.
GENERATED, PIXELS = 1024, 2**26
# Dispatches that are played before any is timed.
WARM_UP = 2
# A dispatch of more seconds than this is warmed up, and timed, once.
LONG_SECONDS = 5.0


class Bench(NamedTuple):
  """A dispatch, ready to be timed.

  Attributes:
    images: That D is shown in it.
    compile_seconds: What it took to trace and compile it.
    program_bytes: What it needs of a device's memory, beside the data set.
    play: (what it is fed): begins it.
    wait: For all that was begun.
  """

  images: int
  compile_seconds: float
  program_bytes: int
  play: Callable[[Any], None]
  wait: Callable[[], None]


class Runner(NamedTuple):
  """A dispatch, and what it is fed."""

  bench: Bench
  fed: Generator[Any]


def generate(config: ConfigDict) -> Source:
  """Noise of the shape of the experiment's images, of classes if those are."""
  rng = np.random.default_rng(0)
  count = min(GENERATED, max(1, PIXELS // config.data.resolution**2))
  shape = (count, *[config.data.resolution] * 2, config.data.channels)
  examples = {'images': rng.integers(0, 256, shape, np.uint8)}
  if classes := config.data.get('classes', 0):
    examples['labels'] = rng.integers(0, classes, count, np.int32)
  return in_memory(examples)


def course(
  config: ConfigDict, first: int | None = None
) -> tuple[Schedule, int]:
  """A schedule that is long enough to time, and the step to begin at.

  None: the first step of the last segment.
  """
  schedule = make_schedule(config)
  if first is None:
    first = schedule.segments[-1].first_step
  longer = schedule.images(schedule.total_steps) + 2**28
  return make_schedule(cfg.changed(config, 'total_images', longer)), first


def images_in(schedule: Schedule, first: int) -> int:
  """PenaltyInputs to D in the dispatch that begins at `first`."""
  return schedule.images(first + schedule.steps_per_dispatch) - schedule.images(
    first
  )


def feed_dispatches(
  config: ConfigDict, source: Source, first: int | None = None
) -> Generator[Any]:
  """What a run is fed, on its way to the devices as in training."""
  schedule, first = course(config, first)
  strategy = devices.make_strategy(config.parallel)
  return devices.prefetch(
    strategy.shard, index_batches(config, source, schedule, first, attempt=0)
  )


def prepare(
  config: ConfigDict, source: Source, first: int | None = None
) -> Bench:
  """Compiles the dispatch that begins at `first`; None: the last segment's."""
  strategy = devices.make_strategy(config.parallel)
  game = games.make(config, strategy.axis_name)
  tx = optimizers.make(config.optimizer.to_dict())
  schedule, first = course(config, first)
  phases = schedule.dispatch(first)
  create = creator(game, tx, config, source)
  state = strategy.replicate(devices.create(create))
  resident = is_resident(config, source)
  dataset = on_devices(strategy, fetch_all(source) if resident else {})
  frozen = on_devices(strategy, game.frozen())
  fed = feed_dispatches(config, source, first)
  args = state, dataset, next(fed), phases, frozen
  fed.close()
  reader = partial(read, flip=config.data.flip)
  start = time.perf_counter()
  step = strategy.compile(
    partial(train_dispatch, game, tx, reader, strategy.axis_name)
  )
  step = step.lower(*args).compile()
  seconds = time.perf_counter() - start
  memory = step.memory_analysis()
  held = sum(leaf.nbytes for leaf in jax.tree.leaves(dataset))
  begun = []

  def play(fed: Any) -> None:
    nonlocal state
    state, metrics = step(state, dataset, fed, phases, frozen)
    begun.append(metrics)
    devices.limit_in_flight(begun)

  def wait() -> None:
    jax.block_until_ready(begun)
    begun.clear()

  return Bench(
    images=images_in(schedule, first),
    compile_seconds=seconds,
    program_bytes=memory.temp_size_in_bytes
    + memory.argument_size_in_bytes
    - held,
    play=play,
    wait=wait,
  )


def creator(
  game: Game, tx: Pair[Any], config: ConfigDict, source: Source
) -> Callable[[], State]:
  """What makes the state, as in training."""
  batch = first_examples(source, Stream(config.seed, source.size))
  shapes = jax.eval_shape(lambda: batch)
  phase = make_schedule(config).phase(0)
  return partial(create_state, game, tx, shapes, phase, config.seed)


def warm_up(runner: Runner) -> float:
  """Seconds of a dispatch, once it is warm; of a long one, of the first."""
  for _ in range(WARM_UP):
    seconds = seconds_of(runner, 1)
    if devices.of_main(int(seconds > LONG_SECONDS)):
      return seconds
  return seconds_of(runner, 1)


def seconds_of(runner: Runner, dispatches: int) -> float:
  start = time.perf_counter()
  for part in itertools.islice(runner.fed, dispatches):
    runner.bench.play(part)
  runner.bench.wait()
  return time.perf_counter() - start


def loaded(fed: Generator[Any], images: int, seconds: float) -> float:
  """Images a second of the loader alone, timed for so many seconds.

  `images` are in one thing that it yields.

  Closes it, which takes a second, once a run: not timed.
  """
  for _ in range(WARM_UP):
    next(fed)
  start, count = time.perf_counter(), 0
  while time.perf_counter() < start + seconds:
    next(fed)
    count += 1
  passed = time.perf_counter() - start
  fed.close()
  return count * images / passed


def flops_of(
  config: ConfigDict, source: Source, first: int | None = None
) -> int:
  """Of a dispatch, on all devices together."""
  game = games.make(config)
  tx = optimizers.make(config.optimizer.to_dict())
  schedule, first = course(config, first)
  stream = Stream(config.seed, source.size)
  return flops(
    partial(train_dispatch, game, tx, partial(read, flip=False), None),
    jax.eval_shape(creator(game, tx, config, source)),
    source.fetch(np.arange(source.size)),
    index_batch(stream, None, schedule, lambda n: slice(n), first),
    schedule.dispatch(first),
    game.frozen(),
  )
