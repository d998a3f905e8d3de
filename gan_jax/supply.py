"""What a run is played with: its first state, its data, a look at its G."""

import hashlib
import os
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, UInt8
from ml_collections import ConfigDict

from gan_jax import parallel
from gan_jax import state as states
from gan_jax.alarm import diversity
from gan_jax.data.loader import load
from gan_jax.data.source import Source
from gan_jax.data.stream import Feed, Stream, feed, read
from gan_jax.data.toys import is_toy
from gan_jax.games.game import Batch, Game
from gan_jax.keys import Purpose, example_keys
from gan_jax.pictures import columns_of, grid, of_each_class, to_uint8
from gan_jax.scene import paint, scene_of
from gan_jax.schedule import Phase, Table
from gan_jax.state import Pair, State

# That are looked at as training goes: so many, and of so many pixels together.
GRID_SAMPLES, GRID_PIXELS = 64, 2**24
# Loader processes where the config names no number and there is something to
# decode: one a core, to so many.
MOST_WORKERS = 16


class Look(NamedTuple):
  """What is seen of a run at a moment.

  Attributes:
    shown: What is drawn: the average G's images, of latents that stay the same;
      of points the scene of both players as they are, not of an average.
    diversity: Of the average G's images.
  """

  shown: PyTree
  diversity: Float[Array, '']


class Sitter(NamedTuple):
  """How a run is looked at, and drawn.

  Attributes:
    look: Compiled: (state, batch, phase) -> Look, at latents for the batch.
    paint: (what was shown, on the host) -> the picture.
  """

  look: Callable[[State, Batch, Phase], Look]
  paint: Callable[[PyTree], UInt8[np.ndarray, 'h w c']]


def is_resident(config: ConfigDict, source: Source) -> bool:
  """Whether the whole set is to lie on the devices."""
  if source.draw is not None:
    return False
  return source.size * source.example_bytes <= config.data.max_device_bytes


def streamed_bytes(config: ConfigDict, source: Source) -> int:
  """Of each example that is sent to the devices."""
  resident = source.draw is not None or is_resident(config, source)
  return 0 if resident else source.example_bytes


def digest_of(batch: Batch) -> str:
  """In short, what is in a batch."""
  digest = hashlib.sha256()
  for name in sorted(batch):
    digest.update(np.asarray(batch[name]).tobytes())
  return digest.hexdigest()[:16]


def on_devices(spread: parallel.Spread, tree: PyTree) -> PyTree:
  """Puts host arrays whole on every device, as what was compiled takes them."""
  return spread.own(parallel.replicate(tree))


def feeds(
  config: ConfigDict,
  source: Source,
  table: Table,
  round: int,
  attempt: int,
) -> Generator[Pair[Feed | None]]:
  """What each dispatch from `round` on is fed; see `feed`."""
  make = _feeder(config, source, table, attempt)
  rounds = range(round, table.total_rounds, table.rounds_per_dispatch)
  if source.draw is not None or is_resident(config, source):
    return (make(first) for first in rounds)
  workers = config.data.workers
  if workers is None:
    cores = min(os.cpu_count() or 1, MOST_WORKERS)
    workers = cores if source.decodes else 0
  return load(make, rounds, workers)


def one_feed(
  config: ConfigDict, source: Source, table: Table, round: int
) -> Pair[Feed | None]:
  """What the dispatch that begins at `round` is fed, of the first attempt."""
  return _feeder(config, source, table, attempt=0)(round)


def _feeder(
  config: ConfigDict, source: Source, table: Table, attempt: int
) -> Callable[[int], Pair[Feed | None]]:
  stream = None
  if source.draw is None:
    stream = Stream(config.seed, source.size, attempt)
  kept = None if is_resident(config, source) else source
  return partial(feed, stream, kept, table, parallel.process_rows())


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
  """The state before the first round."""
  key = jax.random.key(seed)
  batch = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  init_key = jax.random.fold_in(key, Purpose.INIT)
  variables, game_state = game.init(init_key, batch)
  return states.create(key, variables, game_state, tx, phase.stage)


def sitter(game: Game, config: ConfigDict) -> Sitter:
  """How the run of this config is looked at."""
  of_points = is_toy(config.data.source)
  scene = scene_of(game, config) if of_points else None
  classes = config.data.get('classes', 0)

  @jax.jit
  def look(state: State, batch: Batch, phase: Phase) -> Look:
    if classes:
      labels = of_each_class(classes, len(batch['example']))
      batch = {'example': batch['example'][: len(labels)], 'labels': labels}
    key = jax.random.key(config.seed)
    keys = example_keys(key, Purpose.SAMPLE, batch['example'])
    images = game.sample(state.ema, game.draw(keys, batch, phase), phase)
    shown = scene(state.variables, phase) if of_points else images
    return Look(shown, diversity(images))

  def paint_images(images: Float[np.ndarray, 'n h w c']) -> np.ndarray:
    columns = columns_of(classes, len(images)) if classes else None
    return grid(to_uint8(images), columns)

  return Sitter(
    look, partial(paint, config=config) if of_points else paint_images
  )
