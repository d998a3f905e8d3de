"""The only training loop."""

import signal
from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict

from gan_jax import config as cfg
from gan_jax import (
  data,
  evaluation,
  games,
  memory,
  optimizers,
  parallel,
  peers,
  scores,
)
from gan_jax import state as states
from gan_jax.alarm import Alarm, diversity
from gan_jax.announce import announce, point_to, sizes_of
from gan_jax.checkpoint import Checkpoints, steps
from gan_jax.data.loader import fetch_all
from gan_jax.data.source import Source
from gan_jax.data.stream import Stream, read
from gan_jax.data.toys import is_toy
from gan_jax.errors import Diverged, Preempted, UserError, warn
from gan_jax.evaluation import of_ema
from gan_jax.games.game import Batch
from gan_jax.interrupt import Asked, interruptible
from gan_jax.lock import locked
from gan_jax.metrics.evaluator import Evaluator, Values
from gan_jax.monitor import Monitor
from gan_jax.precompile import Precompiler
from gan_jax.round import Metrics, play_dispatch
from gan_jax.schedule import Phase, Table
from gan_jax.state import State
from gan_jax.supply import (
  Look,
  Sitter,
  create_state,
  digest_of,
  feeds,
  first_examples,
  is_resident,
  on_devices,
  one_feed,
  sitter,
  streamed_bytes,
)

# How often a run that diverges goes back to its last checkpoint.
MOST_ATTEMPTS = 5


class _News(NamedTuple):
  """What there is to tell of a moment of the run.

  Attributes:
    round, images: That had been played and shown by then.
    metrics: Of the dispatches since the last line; none: no line is written.
    look: At the average G.
    draw: Whether its images are to be drawn.
    values: What an evaluation gave, if there was one.
  """

  round: int
  images: int
  metrics: list[Metrics]
  look: Look
  draw: bool
  values: Values | None = None


class _Run(NamedTuple):
  """A run that is set up: what stays the same throughout it."""

  config: ConfigDict
  workdir: str | Path
  table: Table
  source: Source
  spread: parallel.Spread
  checkpoints: Checkpoints
  step: Callable[..., tuple[State, Metrics]]
  sitter: Sitter
  shown: Batch
  evaluator: Evaluator | None
  measure: Callable[[PyTree, Phase], Values] | None
  create: Callable[[], State]
  dataset: PyTree
  frozen: PyTree
  data_diversity: float
  sizes: list[str]


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
    Preempted: SIGTERM came; the state is saved.
  """
  parallel.keep_compiled()
  cfg.check(config)
  cfg.check_workdir(config, workdir)
  spread = parallel.make(config.parallel)
  game = games.make(config, spread.axis_name)
  tx = optimizers.make(config.optimizer.to_dict())
  table = cfg.table(config)
  _check_total(config, workdir, table)
  source = data.make(config)
  config = cfg.with_data_size(config, source.size)
  cfg.check_workdir(config, workdir)

  shown = first_examples(source, Stream(config.seed, source.size))
  # (Where the data is does not matter; what it is does.)
  peers.agree({'data.size': source.size, 'data (images)': digest_of(shown)})
  shapes = jax.eval_shape(lambda: shown)
  create = partial(create_state, game, tx, shapes, table.phase(0), config.seed)
  # What cannot be built is refused, and nothing written.
  made = jax.eval_shape(create)
  memory.check_state(made)
  memory.check_dispatch(table, streamed_bytes(config, source))
  sizes = sizes_of(config, table, made.variables.gen, shapes)
  evaluator = measure = rank = None
  if config.evaluation.every_images is not None:
    evaluator = evaluation.make(config, source)
    measure = evaluator.player(games.make(config))
    rank = evaluator.rank if evaluator.main else None
  hold = locked(workdir) if parallel.is_main() else nullcontext()
  with hold:
    if parallel.is_main():
      cfg.write(config, workdir)
    parallel.wait_for_all('config written')
    checkpoints = Checkpoints(
      workdir, config.checkpoints_to_keep, rank, always=table.stage_ends
    )
    with closing(checkpoints), memory.exhaustion_told():
      resident = is_resident(config, source)
      reader = partial(read, flip=config.data.flip, draw=source.draw)
      play = partial(play_dispatch, game, tx, reader, spread.axis_name)
      run = _Run(
        config=config,
        workdir=workdir,
        table=table,
        source=source,
        spread=spread,
        checkpoints=checkpoints,
        step=spread.compile(play),
        sitter=sitter(games.make(config), config),
        shown=shown,
        evaluator=evaluator,
        measure=measure,
        create=create,
        dataset=on_devices(spread, fetch_all(source) if resident else {}),
        frozen=on_devices(spread, game.frozen()),
        data_diversity=float(diversity(shown['images'])),
        sizes=sizes,
      )
      with interruptible() as asked:
        state = _attempt(run, asked)
        checkpoints.finish()
  point_to(workdir)
  return state


def _attempt(run: _Run, asked: Asked) -> State:
  """Plays to the end; where the game diverges, as the config says."""
  state = run.checkpoints.resume(run.create)
  announce(run.config, run.workdir, run.table, run.source, state, run.sizes)
  if run.measure is not None and not int(parallel.fetch(state.round)):
    # What would fail, fails before anything is trained.
    _record(run, 0, 0, run.measure(state.ema, run.table.phase(0)))
  while True:
    attempt = int(parallel.fetch(state.attempt))
    try:
      return _play(run, state, attempt, asked)
    except Diverged as error:
      attempt += 1
      stop = asked()
      if run.config.on_divergence == 'stop' or attempt > MOST_ATTEMPTS:
        raise
      if stop is not None:
        raise _left(stop, 'at its last checkpoint') from error
      if parallel.is_main():
        warn(f'{error}. Going back to it, with other data and latents')
      key = jax.random.key(run.config.seed)
      again = partial(states.another_attempt, key=key, attempt=attempt)
      state = parallel.create(again, run.checkpoints.resume(run.create))


def _play(run: _Run, state: State, attempt: int, asked: Asked) -> State:
  """Plays from the state on, and tells the world."""
  config, table = run.config, run.table
  round = int(parallel.fetch(state.round))
  state = run.spread.own(state)
  fed = feeds(config, run.source, table, round, attempt)
  total_images = table.images(table.total_rounds)
  alarm = Alarm(quiet_until=total_images // 20)
  monitor = _monitor(run, round)
  tell = partial(_tell, run, monitor, alarm)
  stop = None
  compiler = Precompiler(table, partial(_compile, run))
  with closing(fed), monitor:
    if round == 0:
      look = run.sitter.look(state, run.shown, table.phase(0))
      tell(_News(0, 0, [], look, draw=True))
    pending, news = [], None
    for part in parallel.ahead(run.spread.shard, fed):
      phases = table.dispatch(round)
      state, metrics = run.step(state, run.dataset, part, phases, run.frozen)
      compiler.look_ahead(round, state)
      pending.append(metrics)
      parallel.keep_up(pending)
      if news is not None:
        tell(news)  # while the devices play
        news = None
      before, round = round, round + table.rounds_per_dispatch
      compiler.wait(round)

      images = table.images(round)
      due = partial(_due, table, before, round)
      stop = asked()
      # (A run that is told to leave has no time for it.)
      evaluate = due(config.evaluation.every_images) and stop is None
      save = due(config.checkpoint_every_images) or stop is not None
      # So that the best is there, and the last of each stage.
      save = save or evaluate or round in table.stage_ends
      draw = due(config.sample_every_images)
      # A checkpoint closes the line of metrics that it falls into, so that a
      # resumed run begins a line where this one ended it.
      log = before // config.log_every_steps < round // config.log_every_steps
      log = log or save
      if log or draw:
        look = run.sitter.look(state, run.shown, table.phase(round))
        news = _News(round, images, pending if log else [], look, draw)
        pending = [] if log else pending
      if evaluate:
        ema = run.spread.whole(state).ema
        values = run.measure(ema, table.phase(round))
        news = news._replace(values=values)
      if save:
        means, news = tell(news), None
        monitor.keep()
        whole = run.spread.whole(state)
        noted = dict(means)
        if evaluate:
          noted['eval/protocol'] = run.evaluator.protocol
        run.checkpoints.save(round, whole, noted, config.to_dict())
      if stop is not None:
        break
  state = run.spread.whole(state)
  if round < table.total_rounds:
    run.checkpoints.finish()
    raise _left(stop, f'saved at round {round:,}')
  return state


def _monitor(run: _Run, round: int) -> Monitor:
  """What tells the world of a run that begins or resumes at `round`."""
  table = run.table
  try:
    return Monitor(
      run.workdir if parallel.is_main() else None,
      round=round,
      images=table.images(round),
      total_images=table.images(table.total_rounds),
      wandb=run.config.wandb,
      animated=is_toy(run.config.data.source),
    )
  except OSError as error:
    raise UserError(
      f'cannot write to {run.workdir}: {error.strerror}'
    ) from error


def _compile(run: _Run, round: int, state: State) -> None:
  """Compiles what the stage that begins with `round` needs."""
  phases = run.table.dispatch(round)
  fed = one_feed(run.config, run.source, run.table, round)
  fed = run.spread.shard(fed)
  lowered = run.step.lower(state, run.dataset, fed, phases, run.frozen)
  del fed  # its shapes alone were needed
  lowered.compile()
  phase = run.table.phase(round)
  run.sitter.look.lower(state, run.shown, phase).compile()


def _tell(
  run: _Run, monitor: Monitor, alarm: Alarm, news: _News
) -> dict[str, float]:
  """Writes a line of metrics, if there is one, and draws; waits for devices.

  Returns:
    The line's means.

  Raises:
    Diverged: One is not finite.
  """
  round, images, metrics, look, draw, values = news
  means = {}
  if metrics:
    means = _means(metrics, round, run.table.rounds_per_dispatch)
    apart = float(parallel.fetch(look.diversity))
    means['gen/diversity'] = apart / (run.data_diversity or 1.0)
    if values is not None:
      means.update(_record(run, round, images, values))
    until = run.table.images(run.table.row(round - 1).end_round)
    monitor.log(round, images, means, until)
    if parallel.is_main():
      alarm.read(images, means)
  if draw:
    shown = parallel.fetch(look.shown)
    if parallel.is_main():
      monitor.samples(round, images, run.sitter.paint(shown))
  return means


def _record(
  run: _Run, round: int, images: int, values: Values
) -> dict[str, float]:
  """Writes what an evaluation gave to `scores.jsonl`; the means, by name."""
  listed = run.evaluator.list_scores(values, of_ema(), round, images)
  if parallel.is_main():
    print(f'At {images:,} images: {", ".join(map(str, listed))}', flush=True)
    try:
      scores.record(run.workdir, listed)
    except (OSError, UserError) as error:
      warn(f'scores.jsonl of {run.workdir} is not written: {error}')
  means = {f'eval/{score.name}': score.value for score in listed}
  spreads = {f'eval/{s.name}_deviation': s.deviation for s in listed}
  return means | {k: v for k, v in spreads.items() if v is not None}


def _left(stop: signal.Signals | None, saved: str) -> BaseException:
  """What tells that the run was stopped, and by what."""
  return (
    Preempted(saved) if stop == signal.SIGTERM else KeyboardInterrupt(saved)
  )


def _check_total(config: ConfigDict, workdir: str | Path, table: Table) -> None:
  """Refuses to train less than what has been trained."""
  trained = max(steps(workdir), default=0)
  if trained > table.total_rounds:
    raise UserError(
      f'config.total_images={config.total_images} is below the '
      f'{table.images(trained):,} that {workdir} has seen already: read it '
      'with gan_jax.load(workdir, step=...), or prolong it'
    )


def _due(table: Table, before: int, now: int, every_images: int | None) -> bool:
  """Whether a multiple of `every_images` was passed, or the run is over.

  None: never.
  """
  if every_images is None:
    return False
  passed = table.images(before) // every_images
  return passed < table.images(now) // every_images or now == table.total_rounds


def _means(
  pending: list[Metrics], round: int, rounds_per_dispatch: int
) -> dict[str, float]:
  """The means of metrics that come as [(sum, count)] of each round.

  Waits for the device.

  Raises:
    Diverged: One is not finite.
  """
  stacked = jax.tree.map(
    lambda *parts: np.concatenate(parts, dtype=np.float64),
    *parallel.fetch(pending),
  )
  _check_finite(stacked, round - len(pending) * rounds_per_dispatch)
  sums = {name: parts.sum(0) for name, parts in stacked.items()}
  return {name: float(x / count) for name, (x, count) in sums.items() if count}


def _check_finite(stacked: Mapping[str, np.ndarray], before: int) -> None:
  """Tells in which round the game was lost first, by whom, and in what."""
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
    f'{", ".join(disc or names)} not finite at round {before + first + 1:,}: '
    'the game has diverged; the last checkpoint is kept'
  )
