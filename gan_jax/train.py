"""The only training loop."""

import math
import os
from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8
from ml_collections import ConfigDict

from gan_jax import config as cfg
from gan_jax import data, games, optimizers, parallel
from gan_jax import state as states
from gan_jax.checkpoint import Checkpoints
from gan_jax.data.loader import fetch_all, load
from gan_jax.data.source import Source
from gan_jax.data.stream import Feed, Stream, feed, read
from gan_jax.errors import UserError
from gan_jax.games.game import Batch, Game
from gan_jax.interrupt import interruptible
from gan_jax.keys import Purpose, example_keys
from gan_jax.monitor import Monitor
from gan_jax.pictures import to_uint8
from gan_jax.round import Metrics, play_dispatch
from gan_jax.schedule import Phase, Table
from gan_jax.state import Pair, State

GRID_SAMPLES = 64
# Loader processes where the config names no number: one a core, to so many.
MOST_WORKERS = 16


def train(config: ConfigDict, workdir: str | Path) -> State:
  """Trains the run in `workdir`, from where it was left if it was begun.

  Args:
    config: The experiment's.
    workdir: Holds the whole run: config, metrics, samples, checkpoints.

  Returns:
    The state after the last round.

  Raises:
    UserError: Something about the config, the data or the workdir is wrong,
      or the game has diverged.
    KeyboardInterrupt: Ctrl-C was pressed; the state is saved.
  """
  parallel.keep_compiled()
  cfg.check(config)
  cfg.check_workdir(config, workdir)
  spread = parallel.make(config.parallel)
  game = games.make(config, spread.axis_name)
  tx = optimizers.make(config.optimizer.to_dict())
  table = cfg.table(config)
  source = data.make(config)
  config = cfg.with_data_size(config, source.size)
  cfg.check_workdir(config, workdir)

  stream = Stream(config.seed, source.size)
  shown = _first_examples(source, stream, GRID_SAMPLES)
  shapes = jax.eval_shape(lambda: shown)
  create = partial(_create, game, tx, shapes, table.phase(0), config.seed)
  jax.eval_shape(create)  # what cannot be built is refused, nothing written
  if parallel.is_main():
    cfg.write(config, workdir)
  checkpoints = Checkpoints(workdir, config.checkpoints_to_keep)
  state = checkpoints.resume(create)
  round = int(parallel.fetch(state.round))
  _announce(config, workdir, source, table, state, round)

  resident = source.size * source.example_bytes <= config.data.max_device_bytes
  dataset = parallel.replicate(fetch_all(source) if resident else {})
  frozen = parallel.replicate(game.frozen())
  reader = partial(read, flip=config.data.flip)
  step = spread.compile(
    partial(play_dispatch, game, tx, reader, spread.axis_name)
  )
  sample = _sampler(game, shown)
  monitor = Monitor(
    workdir if parallel.is_main() else None,
    round=round,
    images=table.images(round),
    total_images=table.images(table.total_rounds),
    wandb=config.wandb,
  )
  fed = _feeds(config, stream, None if resident else source, table, round)
  with (
    closing(checkpoints),
    closing(fed),
    monitor,
    interruptible() as interrupted,
  ):
    if round == 0:
      monitor.samples(0, 0, sample(state, table.phase(0)))
    pending = []
    for part in parallel.ahead(spread.shard, fed):
      phases = table.dispatch(round)
      state, metrics = step(state, dataset, part, phases, frozen)
      pending.append(metrics)
      parallel.keep_up(pending)
      before, round = round, round + table.rounds_per_dispatch

      images = table.images(round)
      due = partial(_due, table, before, round)
      stop = interrupted()
      save = due(config.checkpoint_every_images) or stop
      # A checkpoint closes the line of metrics that it falls into, so that a
      # resumed run begins a line where this one ended it.
      log = before // config.log_every_steps < round // config.log_every_steps
      if log or save:
        means = _means(pending)
        monitor.log(round, images, means)
        _check_finite(round, means)
        pending = []
      if due(config.sample_every_images):
        monitor.samples(round, images, sample(state, table.phase(round)))
      if save:
        checkpoints.save(round, state, means, config.to_dict())
      if stop:
        break
  if round < table.total_rounds:
    raise KeyboardInterrupt(f'saved at round {round:,}')
  _point_to(workdir)
  return state


def _due(table: Table, before: int, now: int, every_images: int) -> bool:
  """Whether a multiple of `every_images` was passed, or the run is over."""
  passed = table.images(before) // every_images
  return passed < table.images(now) // every_images or now == table.total_rounds


def _means(pending: list[Metrics]) -> dict[str, float]:
  """The means of metrics that come as (sum, count); waits for the device."""
  sums = jax.tree.map(
    lambda *parts: np.sum(parts, axis=0, dtype=np.float64),
    *parallel.fetch(pending),
  )
  return {name: float(x / count) for name, (x, count) in sums.items() if count}


def _check_finite(round: int, means: dict[str, float]) -> None:
  """Stops a game that is lost, before it is saved."""
  for name, mean in means.items():
    if name.endswith('/loss') and not math.isfinite(mean):
      raise UserError(
        f'{name} is {mean} at round {round:,}: the game has diverged; '
        'the checkpoints from before are kept'
      )


def _feeds(
  config: ConfigDict,
  stream: Stream,
  source: Source | None,
  table: Table,
  round: int,
) -> Generator[Pair[Feed | None]]:
  """What each dispatch from `round` on is fed; see `feed`."""
  make = partial(feed, stream, source, table, parallel.process_rows())
  rounds = range(round, table.total_rounds, table.rounds_per_dispatch)
  if source is None:
    return (make(first) for first in rounds)
  workers = config.data.workers
  if workers is None:
    workers = min(os.cpu_count() or 1, MOST_WORKERS)
  return load(make, rounds, workers)


def _first_examples(source: Source, stream: Stream, n: int) -> Batch:
  """The first `n` examples of the stream, as a batch."""
  fetched = source.fetch(stream.indices(np.arange(n)))
  fetched['example'] = np.arange(n, dtype=np.int32)
  fetched = jax.tree.map(jnp.asarray, fetched)
  return read({}, fetched, jax.random.key(0), jnp.int32(0), flip=False)


def _create(
  game: Game, tx: Pair[Any], shapes: Batch, phase: Phase, seed: int
) -> State:
  """The state before the first round."""
  key = jax.random.key(seed)
  batch = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  init_key = jax.random.fold_in(key, Purpose.INIT)
  variables, game_state = game.init(init_key, batch)
  return states.create(key, variables, game_state, tx, phase.stage)


def _sampler(
  game: Game, batch: Batch
) -> Callable[[State, Phase], UInt8[np.ndarray, 'n h w c']]:
  """(state, phase) -> the average G's images at latents that stay the same."""

  @jax.jit
  def sample(ema, key, batch, phase):
    keys = example_keys(key, Purpose.SAMPLE, batch['example'])
    return game.sample(ema, game.draw(keys, batch, phase), phase)

  return lambda state, phase: to_uint8(
    parallel.fetch(sample(state.ema, state.key, batch, phase))
  )


def _announce(
  config: ConfigDict,
  workdir: str | Path,
  source: Source,
  table: Table,
  state: State,
  round: int,
) -> None:
  """Prints what is about to be trained, on what, and where it goes."""
  if not parallel.is_main():
    return
  params = states.player_params(state.variables)
  count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
  print(f'Workdir:  {workdir}')
  print(data.describe(config, source))
  print(
    f'Networks: G {count(params.gen):,} parameters, '
    f'D {count(params.disc):,} parameters'
  )
  print(f'Devices:  {parallel.describe()} ({config.parallel})')
  print(
    f'Rounds:   {table.total_rounds:,}, '
    f'{table.images(table.total_rounds):,} images'
  )
  if round:
    print(f'Resuming at round {round:,}, {table.images(round):,} images')
  if round >= table.total_rounds:
    print('Nothing is left to do: a larger --config.total_images prolongs it')


def _point_to(workdir: str | Path) -> None:
  """Prints where everything is, and how it is opened."""
  if parallel.is_main():
    print(
      f'Done. Samples, metrics and checkpoints are in {workdir}\n'
      f"Open it:  import gan_jax; run = gan_jax.load('{workdir}'); run.show(64)"
    )
