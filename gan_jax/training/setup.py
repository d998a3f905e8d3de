"""What a run is played with: its first state, its data, a look at its G."""

import os
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, UInt8
from ml_collections import ConfigDict

from gan_jax import devices
from gan_jax.data.loader import load
from gan_jax.data.on_device import read
from gan_jax.data.order import Stream
from gan_jax.data.source import Source
from gan_jax.data.toys import is_toy
from gan_jax.games.game import Batch, Game, Phase
from gan_jax.keys import Purpose, example_keys
from gan_jax.ops.pixels import to_uint8
from gan_jax.pair import Pair
from gan_jax.plots.grid import columns_of, grid, labels_by_class
from gan_jax.plots.toy_plot import make_plot_data, plot
from gan_jax.training import state as states
from gan_jax.training.feed import IndexBatch, feed
from gan_jax.training.health import diversity
from gan_jax.training.schedule import Table
from gan_jax.training.state import State

# That are looked at as training goes: so many, and of so many pixels together.
GRID_SAMPLES, GRID_PIXELS = 64, 2**24
# Loader processes where the config names no number and there is something to
# decode: one a core, to so many.
MOST_WORKERS = 16


class Samples(NamedTuple):
  """What is seen of a run at a moment.

  Attributes:
    shown: What is drawn: the average G's images, of latents that stay the same;
      of points the scene of both players as they are, not of an average.
    diversity: Of the average G's images.
  """

  shown: PyTree
  diversity: Float[Array, '']


class Sampler(NamedTuple):
  """How a run is looked at, and drawn.

  Attributes:
    look: Compiled: (state, batch, phase) -> Samples, at latents for the batch.
    paint: (what was shown, on the host) -> the picture.
  """

  look: Callable[[State, Batch, Phase], Samples]
  plot: Callable[[PyTree], UInt8[np.ndarray, 'h w c']]


def is_resident(config: ConfigDict, source: Source) -> bool:
  """Whether the whole set is to lie on the devices."""
  if source.draw is not None:
    return False
  return source.size * source.example_bytes <= config.data.max_device_bytes


def on_devices(strategy: devices.Strategy, tree: PyTree) -> PyTree:
  """Puts host arrays whole on every device, as what was compiled takes them."""
  return strategy.replicate(devices.replicate(tree))


def feeds(
  config: ConfigDict,
  source: Source,
  table: Table,
  step: int,
  attempt: int,
) -> Generator[Pair[IndexBatch | None]]:
  """What each dispatch from `step` on is fed; see `feed`."""
  make = _feeder(config, source, table, attempt)
  steps = range(step, table.total_steps, table.steps_per_dispatch)
  if source.draw is not None or is_resident(config, source):
    return (make(first) for first in steps)
  workers = config.data.workers
  if workers is None:
    cores = min(os.cpu_count() or 1, MOST_WORKERS)
    workers = cores if source.decodes else 0
  return load(make, steps, workers)


def one_feed(
  config: ConfigDict, source: Source, table: Table, step: int
) -> Pair[IndexBatch | None]:
  """What the dispatch that begins at `step` is fed, of the first attempt."""
  return _feeder(config, source, table, attempt=0)(step)


def _feeder(
  config: ConfigDict, source: Source, table: Table, attempt: int
) -> Callable[[int], Pair[IndexBatch | None]]:
  stream = None
  if source.draw is None:
    stream = Stream(config.seed, source.size, attempt)
  kept = None if is_resident(config, source) else source
  return partial(feed, stream, kept, table, devices.process_rows())


def first_examples(source: Source, stream: Stream) -> Batch:
  """The first examples of the stream, as a batch."""
  (one,) = source.fetch(np.arange(1))['images']
  count = min(GRID_SAMPLES, max(2, GRID_PIXELS // (one.size // one.shape[-1])))
  fetched = source.fetch(stream.indices(np.arange(count)))
  fetched['example'] = np.arange(count, dtype=np.int32)
  fetched = jax.tree.map(jnp.asarray, fetched)
  return read({}, fetched, jax.random.key(0), jnp.int32(0), flip=False)


def create_state(
  game: Game, tx: Pair[Any], shapes: Batch, phase: Phase, seed: int
) -> State:
  """The state before the first iteration."""
  key = jax.random.key(seed)
  batch = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  init_key = jax.random.fold_in(key, Purpose.INIT)
  variables, game_state = game.init(init_key, batch)
  return states.create(key, variables, game_state, tx, phase.stage)


def make_sampler(game: Game, config: ConfigDict) -> Sampler:
  """How the run of this config is looked at."""
  of_points = is_toy(config.data.source)
  scene = make_plot_data(game, config) if of_points else None
  classes = config.data.get('classes', 0)

  @jax.jit
  def look(state: State, batch: Batch, phase: Phase) -> Samples:
    if classes:
      labels = labels_by_class(classes, len(batch['example']))
      batch = {'example': batch['example'][: len(labels)], 'labels': labels}
    key = jax.random.key(config.seed)
    keys = example_keys(key, Purpose.SAMPLE, batch['example'])
    images = game.sample(
      state.ema, game.sample_inputs(keys, batch, phase), phase
    )
    shown = scene(state.variables, phase) if of_points else images
    return Samples(shown, diversity(images))

  def paint_images(images: Float[np.ndarray, 'n h w c']) -> np.ndarray:
    columns = columns_of(classes, len(images)) if classes else None
    return grid(to_uint8(images), columns)

  return Sampler(
    look, partial(plot, config=config) if of_points else paint_images
  )
