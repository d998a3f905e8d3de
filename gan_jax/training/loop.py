"""The only training loop."""

import hashlib
import signal
from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict

from gan_jax import compile_cache, data, devices, games, memory
from gan_jax import config as cfg
from gan_jax.data.loader import fetch_all
from gan_jax.data.on_device import read
from gan_jax.data.order import Stream
from gan_jax.data.source import Source
from gan_jax.data.toys import is_toy
from gan_jax.errors import Diverged, Preempted, UserError, warn
from gan_jax.files import locked, point_link
from gan_jax.games.game import Batch
from gan_jax.training import optimizers, peers, schedule
from gan_jax.training import state as states
from gan_jax.training.check import check_config, check_length
from gan_jax.training.checkpoint import Checkpoints, steps
from gan_jax.training.evaluations import Evaluated, Evaluations
from gan_jax.training.health import HealthChecks, diversity
from gan_jax.training.precompile import Precompiler
from gan_jax.training.run_log import RunLog
from gan_jax.training.schedule import Table
from gan_jax.training.setup import (
  Sampler,
  Samples,
  create_state,
  feeds,
  first_examples,
  is_resident,
  make_sampler,
  on_devices,
  one_feed,
)
from gan_jax.training.state import State
from gan_jax.training.step import Metrics, train_dispatch
from gan_jax.training.stopping import Asked, interruptible
from gan_jax.training.summary import (
  print_outcome,
  print_summary,
  scheduled,
  sizes_of,
)

# How often a run that diverges goes back to its last checkpoint.
MOST_ATTEMPTS = 5


class _LogRecord(NamedTuple):
  """What there is to tell of a moment of the run.

  Attributes:
    iteration, images: That had been played and shown by then.
    metrics: Of the dispatches since the last line; none: no line is written.
    look: At the average G.
    draw: Whether its images are to be drawn.
    evaluated: What an evaluation gave, if there was one.
  """

  step: int
  images: int
  metrics: list[Metrics]
  look: Samples
  draw: bool
  evaluated: Evaluated | None = None


class _Run(NamedTuple):
  """A run that is set up: what stays the same throughout it."""

  config: ConfigDict
  workdir: str | Path
  table: Table
  source: Source
  strategy: devices.Strategy
  checkpoints: Checkpoints
  train_step: Callable[..., tuple[State, Metrics]]
  sampler: Sampler
  shown: Batch
  evaluations: Evaluations | None
  create: Callable[[], State]
  dataset: PyTree
  frozen: PyTree
  data_diversity: float
  sizes: list[str]
  settings: Mapping[str, Any]


def train(
  config: ConfigDict,
  workdir: str | Path,
  *,
  settings: Mapping[str, Any] | None = None,
  latest: Path | None = None,
) -> State:
  """Trains the run in `workdir`, from where it was left if it was begun.

  Args:
    config: The experiment's.
    workdir: Holds the whole run: config, metrics, samples, checkpoints.
    settings: What differs from the experiment's file, by key: for the summary.
    latest: Where a symbolic link to `workdir` is made as training starts.

  Returns:
    The state after the last iteration.

  Raises:
    UserError: Something about the config, the data or the workdir is wrong,
      or the game has diverged.
    KeyboardInterrupt: Ctrl-C was pressed; the state is saved.
    Preempted: SIGTERM came; the state is saved.
  """
  compile_cache.enable()
  check_config(config)
  cfg.check_workdir(config, workdir)
  strategy = devices.make_strategy(config.parallel)
  game = games.make(config, strategy.axis_name)
  tx = optimizers.make(config.optimizer.to_dict())
  table = schedule.of_config(config)
  check_length(config, workdir, max(steps(workdir), default=0))
  source = data.make(config)
  config = cfg.with_data_size(config, source.size)
  cfg.check_workdir(config, workdir)

  shown = first_examples(source, Stream(config.seed, source.size))
  # (Where the data is does not matter; what it is does.)
  peers.agree({'data.size': source.size, 'data (images)': _digest(shown)})
  shapes = jax.eval_shape(lambda: shown)
  create = partial(create_state, game, tx, shapes, table.phase(0), config.seed)
  # What cannot be built is refused, and nothing written.
  made = jax.eval_shape(create)
  memory.check_state(made)
  _check_dispatch(table, config, source)
  sizes = sizes_of(config, table, made.variables.gen, shapes)
  evaluations = None
  if config.evaluation.every_images is not None:
    evaluations = Evaluations(config, workdir, table, source)
  hold = locked(workdir) if devices.is_main() else nullcontext()
  with hold:
    if devices.is_main():
      cfg.write(config, workdir)
      if latest is not None:
        point_link(latest, workdir)
    devices.wait_for_all('config written')
    checkpoints = Checkpoints(
      workdir, config.checkpoints_to_keep, always=table.stage_ends
    )
    with closing(checkpoints), memory.exhaustion_told():
      resident = is_resident(config, source)
      reader = partial(read, flip=config.data.flip, draw=source.draw)
      play = partial(train_dispatch, game, tx, reader, strategy.axis_name)
      run = _Run(
        config=config,
        workdir=workdir,
        table=table,
        source=source,
        strategy=strategy,
        checkpoints=checkpoints,
        train_step=strategy.compile(play),
        sampler=make_sampler(games.make(config), config),
        shown=shown,
        evaluations=evaluations,
        create=create,
        dataset=on_devices(strategy, fetch_all(source) if resident else {}),
        frozen=on_devices(strategy, game.frozen()),
        data_diversity=float(diversity(shown['images'])),
        sizes=sizes,
        settings=settings or {},
      )
      with interruptible() as asked:
        state = _attempt(run, asked)
        checkpoints.finish()
  print_outcome(workdir)
  return state


def _attempt(run: _Run, asked: Asked) -> State:
  """Plays to the end; where the game diverges, as the config says."""
  state = run.checkpoints.resume(run.create)
  print_summary(
    run.config,
    run.workdir,
    run.table,
    run.source,
    state,
    run.sizes,
    run.settings,
    run.evaluations,
  )
  while True:
    attempt = int(devices.fetch(state.attempt))
    try:
      return _play(run, state, attempt, asked)
    except Diverged as error:
      attempt += 1
      stop = asked()
      if run.config.on_divergence == 'stop' or attempt > MOST_ATTEMPTS:
        raise
      if stop is not None:
        raise _left(stop, 'at its last checkpoint') from error
      if devices.is_main():
        warn(f'{error}. Going back to it, with other data and latents')
      key = jax.random.key(run.config.seed)
      again = partial(states.next_attempt, key=key, attempt=attempt)
      state = devices.create(again, run.checkpoints.resume(run.create))


def _play(run: _Run, state: State, attempt: int, asked: Asked) -> State:
  """Plays from the state on, and tells the world."""
  config, table = run.config, run.table
  step = int(devices.fetch(state.step))
  # One is due before the first step: what would fail, fails at once.
  owed = _is_owed(run, step) and run.evaluations.measure(state.ema, step)
  state = run.strategy.replicate(state)
  fed = feeds(config, run.source, table, step, attempt)
  total_images = table.images(table.total_steps)
  alarm = HealthChecks(quiet_until=total_images // 20)
  monitor = _monitor(run, step, attempt)
  tell = partial(_tell, run, monitor, alarm)
  stop = None
  compiler = Precompiler(table, partial(_compile, run))
  with closing(fed), monitor:
    if owed:
      _record_owed(run, monitor, owed)
    if step == 0:
      look = run.sampler.sample(state, run.shown, table.phase(0))
      tell(_LogRecord(0, 0, [], look, draw=True))
    pending, news = [], None
    for part in devices.prefetch(run.strategy.shard, fed):
      phases = table.dispatch(step)
      state, metrics = run.train_step(
        state, run.dataset, part, phases, run.frozen
      )
      compiler.look_ahead(step, state)
      pending.append(metrics)
      devices.limit_in_flight(pending)
      if news is not None:
        tell(news)  # while the devices play
        news = None
      before, step = step, step + table.steps_per_dispatch
      compiler.wait(step)

      images = table.images(step)
      due = partial(_due, table, before, step)
      stop = asked()
      # (A run that is told to leave has no time for it.)
      evaluate = due(config.evaluation.every_images) and stop is None
      save = due(config.checkpoint_every_images) or stop is not None
      # So that the best is there, and the last of each stage.
      save = save or evaluate or step in table.stage_ends
      draw = due(config.sample_every_images)
      # A checkpoint closes the line of metrics that it falls into, so that a
      # resumed run begins a line where this one ended it.
      log = before // config.log_every_steps < step // config.log_every_steps
      log = log or save
      if log or draw:
        look = run.sampler.sample(state, run.shown, table.phase(step))
        news = _LogRecord(step, images, pending if log else [], look, draw)
        pending = [] if log else pending
      if evaluate:
        ema = run.strategy.unreplicate(state).ema
        evaluated = run.evaluations.measure(ema, step)
        news = news._replace(evaluated=evaluated)
      if save:
        line, news = tell(news), None
        monitor.keep()
        whole = run.strategy.unreplicate(state)
        run.checkpoints.save(step, whole, line, config.to_dict())
      if stop is not None:
        break
  state = run.strategy.unreplicate(state)
  if stop is not None and not _is_complete(run, step):
    run.checkpoints.finish()
    raise _left(stop, f'saved at iteration {step:,}')
  return state


def _monitor(run: _Run, step: int, attempt: int) -> RunLog:
  """What tells the world of a run that begins or resumes at `step`."""
  table = run.table
  try:
    return RunLog(
      run.workdir if devices.is_main() else None,
      step=step,
      attempt=attempt,
      images=table.images(step),
      total_images=table.images(table.total_steps),
      wandb=run.config.wandb,
      animated=is_toy(run.config.data.source),
    )
  except OSError as error:
    raise UserError(
      f'cannot write to {run.workdir}: {error.strerror}'
    ) from error


def _compile(run: _Run, step: int, state: State) -> None:
  """Compiles what the stage that begins with `step` needs."""
  phases = run.table.dispatch(step)
  fed = one_feed(run.config, run.source, run.table, step)
  fed = run.strategy.shard(fed)
  lowered = run.train_step.lower(state, run.dataset, fed, phases, run.frozen)
  del fed  # its shapes alone were needed
  lowered.compile()
  phase = run.table.phase(step)
  run.sampler.sample.lower(state, run.shown, phase).compile()


def _tell(
  run: _Run, monitor: RunLog, alarm: HealthChecks, news: _LogRecord
) -> dict[str, float | int]:
  """Writes a line of metrics, if there is one, and draws; waits for devices.

  Returns:
    The line.

  Raises:
    Diverged: One is not finite.
  """
  step, images, metrics, look, draw, evaluated = news
  line = {}
  if metrics:
    means = _means(metrics, step, run.table.steps_per_dispatch)
    apart = float(devices.fetch(look.diversity))
    means['gen/diversity'] = apart / (run.data_diversity or 1.0)
    line = {**means, **scheduled(run.table, run.sizes, step - 1)}
    seconds = 0.0
    if evaluated is not None:
      run.evaluations.record(evaluated)
      line, seconds = {**line, **evaluated.means}, evaluated.seconds
    until = run.table.images(run.table.row(step - 1).end_step)
    monitor.log(step, images, line, until, seconds)
    if devices.is_main():
      alarm.read(step, images, means)
  if draw:
    shown = devices.fetch(look.shown)
    if devices.is_main():
      monitor.samples(step, images, run.sampler.draw(shown))
  return line


def _check_dispatch(table: Table, config: ConfigDict, source: Source) -> None:
  """Refuses dispatches whose input is too large for the machine."""
  resident = source.draw is not None or is_resident(config, source)
  segments = [row.segment for row in table.rows]
  examples = [x.images_per_step + (x.gen_batch_size or 0) for x in segments]
  streamed = 0 if resident else source.example_bytes
  memory.check_dispatch(table.steps_per_dispatch, max(examples), streamed)


def _digest(batch: Batch) -> str:
  """In short, what is in a batch."""
  digest = hashlib.sha256()
  for name in sorted(batch):
    digest.update(np.asarray(batch[name]).tobytes())
  return digest.hexdigest()[:16]


def _left(stop: signal.Signals | None, saved: str) -> BaseException:
  """What tells that the run was stopped, and by what."""
  return (
    Preempted(saved) if stop == signal.SIGTERM else KeyboardInterrupt(saved)
  )


def _due(table: Table, before: int, now: int, every_images: int | None) -> bool:
  """Whether a multiple of `every_images` was passed, or the run is over.

  None: never.
  """
  if every_images is None:
    return False
  passed = table.images(before) // every_images
  return passed < table.images(now) // every_images or now == table.total_steps


def _record_owed(run: _Run, monitor: RunLog, owed: Evaluated) -> None:
  """Adds it to the line of its iteration, and to the scores."""
  score = owed.scores[0]
  monitor.amend(score.step, score.images, owed.means)
  monitor.keep()
  run.evaluations.record(owed)  # last: from then on it is not owed


def _is_owed(run: _Run, step: int) -> bool:
  """Whether an evaluation was due at `step`, and was not made."""
  if run.evaluations is None:
    return False
  every = run.config.evaluation.every_images
  before = step - run.table.steps_per_dispatch
  due = step == 0 or _due(run.table, before, step, every)
  return due and not run.evaluations.is_recorded(step)


def _is_complete(run: _Run, step: int) -> bool:
  """Whether nothing is left to be trained, or measured."""
  return step >= run.table.total_steps and not _is_owed(run, step)


def _means(
  pending: list[Metrics], step: int, steps_per_dispatch: int
) -> dict[str, float]:
  """The means of metrics that come as [(sum, count)] of each iteration.

  Waits for the device.

  Raises:
    Diverged: One is not finite.
  """
  stacked = jax.tree.map(
    lambda *parts: np.concatenate(parts, dtype=np.float64),
    *devices.fetch(pending),
  )
  _check_finite(stacked, step - len(pending) * steps_per_dispatch)
  sums = {name: parts.sum(0) for name, parts in stacked.items()}
  return {name: float(x / count) for name, (x, count) in sums.items() if count}


def _check_finite(stacked: Mapping[str, np.ndarray], before: int) -> None:
  """Tells in which iteration the game was lost first, by whom, and in what."""
  lost = {
    name: int(np.argmin(np.isfinite(parts[:, 0])))
    for name, parts in stacked.items()
    if not np.isfinite(parts[:, 0]).all()
  }
  if not lost:
    return
  first = min(lost.values())
  names = sorted(name for name, at in lost.items() if at == first)
  # D moves first: what it has spoilt, G only takes over.
  disc = [name for name in names if name.startswith('disc/')]
  raise Diverged(
    f'{", ".join(disc or names)} not finite at iteration '
    f'{before + first + 1:,}: the game has diverged; the last checkpoint is '
    'kept'
  )
