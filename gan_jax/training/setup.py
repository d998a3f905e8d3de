"""Sets up a run: everything that it needs before its first iteration."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree
from ml_collections import ConfigDict

from gan_jax import config as cfg
from gan_jax import data, devices, games, memory
from gan_jax.data.loader import fetch_all
from gan_jax.data.on_device import make_reader
from gan_jax.data.source import Source
from gan_jax.files import locked, point_link
from gan_jax.games.game import Batch, Game, Phase, main_output
from gan_jax.keys import Purpose
from gan_jax.pair import Pair
from gan_jax.training import initial, optimizers, peers
from gan_jax.training import state as states
from gan_jax.training.check import check_config, check_length
from gan_jax.training.checkpoint import Checkpoints, steps
from gan_jax.training.dispatch import train_dispatch
from gan_jax.training.evaluations import Evaluations
from gan_jax.training.feed import is_resident
from gan_jax.training.health import diversity
from gan_jax.training.sampler import (
  Sampler,
  check_entries,
  first_examples,
  make_sampler,
)
from gan_jax.training.schedule import Schedule, make_schedule
from gan_jax.training.state import State
from gan_jax.training.step import Metrics
from gan_jax.training.strategies import Strategy, make_strategy
from gan_jax.training.summary import sizes_of


class TrainingRun(NamedTuple):
  """A run that is ready to train.

  Attributes:
    config, workdir, schedule, source: Those of the run.
    strategy: How the run is parallelized over devices.
    checkpoints: Saves and restores the state.
    train_dispatch: (state, dataset, index batches, phases, frozen) ->
      (state, metrics); compiled.
    sampler, examples: The sample grid, and the real examples that it uses.
    evaluations: The evaluations; None: the run is not evaluated.
    create: () -> the initial state.
    dataset: The data set if it is on the devices; otherwise {}.
    frozen: What `game.frozen` returned.
    data_diversity: Mean distance between two real examples.
    sizes: The size of the fakes in each segment, as 4x4.
    settings: The settings that differ from the experiment's file, by key.
    initial: The weights that a new run starts from; None: random ones.
  """

  config: ConfigDict
  workdir: str | Path
  schedule: Schedule
  source: Source
  strategy: Strategy
  checkpoints: Checkpoints
  train_dispatch: Callable[..., tuple[State, Metrics]]
  sampler: Sampler
  examples: Batch
  evaluations: Evaluations | None
  create: Callable[[], State]
  dataset: PyTree
  frozen: PyTree
  data_diversity: float
  sizes: list[str]
  settings: Mapping[str, Any]
  initial: initial.Initial | None

  def start(self) -> tuple[State, list[str]]:
    """Restores the newest checkpoint, or creates a new state.

    Returns:
      The state, and lines about the initial weights for the run summary.
    """
    state = self.checkpoints.resume(self.create)
    if self.initial is None or int(devices.fetch(state.step)):
      return state, []
    if self.config.init.get('state', False):
      return initial.continue_run(self.config, self.schedule, self.create)
    return initial.initialize(state, self.initial)


@contextlib.contextmanager
def set_up(
  config: ConfigDict,
  workdir: str | Path,
  settings: Mapping[str, Any],
  latest: Path | None,
) -> Iterator[TrainingRun]:
  """Sets up a run and locks its workdir; see `train` for the arguments.

  All checks precede the first write.

  Raises:
    UserError: The config, the data or the workdir is invalid.
  """
  check_config(config)
  cfg.check_workdir(config, workdir)
  strategy = make_strategy(config.parallel)
  game = games.make(config, strategy.axis_name)
  tx = optimizers.make(config.optimizer.to_dict())
  schedule = make_schedule(config)
  check_length(config, workdir, max(steps(workdir), default=0))
  source = data.make(config, training=True)
  whole = _uncropped(config, source)
  config = cfg.with_data_size(config, _sizes(source), _shards(source))
  config, weights = _initial_weights(config, workdir)
  cfg.check_workdir(config, workdir)
  peers.agree({'init.digest': config.get('init', {}).get('digest')})

  examples = first_examples(config, whole)
  check_entries(config, game, examples)
  # The paths of the data may differ between processes, but not the data.
  peers.agree(
    {
      'data.size': _sizes(source),
      'data.shards': _shards(source),
      'data (images)': _digest(examples),
    }
  )
  shapes = jax.eval_shape(lambda: examples)
  phase = schedule.phase(0)
  create = partial(create_state, game, tx, shapes, phase, config.seed)
  abstract = jax.eval_shape(create)
  memory.check_state(abstract)
  _check_dispatch(schedule, config, source)
  sizes = sizes_of(config, schedule, abstract.variables.gen, shapes)
  evaluations = None
  if config.evaluation.every_images is not None:
    evaluations = Evaluations(config, workdir, schedule, whole)

  with contextlib.ExitStack() as stack:
    checkpoints = _open_workdir(stack, config, workdir, schedule, latest)
    stack.enter_context(memory.report_out_of_memory())
    resident = is_resident(config, source)
    reader = make_reader(config, source)
    dispatch = partial(train_dispatch, game, tx, reader, strategy.axis_name)
    yield TrainingRun(
      config=config,
      workdir=workdir,
      schedule=schedule,
      source=source,
      strategy=strategy,
      checkpoints=checkpoints,
      train_dispatch=strategy.compile(dispatch),
      sampler=make_sampler(games.make(config), config, source),
      examples=examples,
      evaluations=evaluations,
      create=create,
      dataset=on_devices(strategy, fetch_all(source) if resident else {}),
      frozen=on_devices(strategy, game.frozen()),
      data_diversity=float(diversity(examples[main_output(game).reference])),
      sizes=sizes,
      settings=settings,
      initial=weights,
    )


def _open_workdir(
  stack: contextlib.ExitStack,
  config: ConfigDict,
  workdir: str | Path,
  schedule: Schedule,
  latest: Path | None,
) -> Checkpoints:
  """Locks the workdir until the stack closes, and writes the config."""
  if devices.is_main():
    stack.enter_context(locked(workdir))
    cfg.write(config, workdir)
    if latest is not None:
      point_link(latest, workdir)
  devices.barrier('config written')
  checkpoints = Checkpoints(
    workdir, config.checkpoints_to_keep, always=schedule.stage_ends
  )
  return stack.enter_context(contextlib.closing(checkpoints))


def _uncropped(config: ConfigDict, source: Source) -> Source:
  """Returns the source with images of `data.resolution`, not cropped."""
  if config.data.get('load_resolution') is None:
    return source
  return data.make(config)


def _sizes(source: Source) -> int | tuple[int, ...]:
  """Returns the size of a source, or those of its parts."""
  return tuple(part.size for part in source.parts.values()) or source.size


def _shards(source: Source) -> str | None:
  """Returns a digest of the shards, if the order depends on them."""
  parts = source.parts or {'': source}
  blocks = {name: part.blocks for name, part in parts.items() if part.blocks}
  if not blocks:
    return None
  return hashlib.sha256(str(sorted(blocks.items())).encode()).hexdigest()[:16]


def _initial_weights(
  config: ConfigDict, workdir: str | Path
) -> tuple[ConfigDict, initial.Initial | None]:
  """Reads the initial weights of a new run, and records their digest.

  A run that has a checkpoint does not need them any more.
  """
  source = cfg.init_source(config)
  if source is None:
    return config, None
  if steps(workdir):
    digest = cfg.read(workdir).get('init', {}).get('digest')
    return cfg.with_init_digest(config, digest), None
  weights = initial.read(source, config.init.get('players', Pair._fields))
  return cfg.with_init_digest(config, weights.digest), weights


def create_state(
  game: Game, tx: Pair[Any], shapes: Batch, phase: Phase, seed: int | Array
) -> State:
  """Creates the initial state; the seed may be traced."""
  key = jax.random.key(seed)
  batch = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  init_key = jax.random.fold_in(key, Purpose.INIT)
  variables, game_state = game.init(init_key, batch)
  return states.create(key, variables, game_state, tx, phase.stage)


def on_devices(strategy: Strategy, tree: PyTree) -> PyTree:
  """Replicates host arrays on all devices, as the compiled programs expect."""
  return strategy.replicate(devices.replicate(tree))


def _check_dispatch(
  schedule: Schedule, config: ConfigDict, source: Source
) -> None:
  """Raises UserError if the inputs of a dispatch do not fit in memory."""
  resident = source.draw is not None or is_resident(config, source)
  segments = [placed.segment for placed in schedule.segments]
  examples = [x.images_per_step + (x.gen_batch_size or 0) for x in segments]
  streamed = 0 if resident else source.example_bytes
  memory.check_dispatch(schedule.steps_per_dispatch, max(examples), streamed)


def _digest(batch: Batch) -> str:
  """Returns a short digest of a batch."""
  digest = hashlib.sha256()
  for name in sorted(batch):
    digest.update(np.asarray(batch[name]).tobytes())
  return digest.hexdigest()[:16]
