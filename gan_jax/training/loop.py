"""The training loop."""

import signal
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from gan_jax import compile_cache, devices
from gan_jax.data.toys import has_points
from gan_jax.errors import Diverged, Preempted, UserError, warn
from gan_jax.training.evaluations import Evaluated
from gan_jax.training.feed import (
  index_batch_maker,
  index_batches,
  repeat_first,
)
from gan_jax.training.health import HealthChecks
from gan_jax.training.log_lines import mean_metrics, scheduled_values
from gan_jax.training.precompile import Precompiler
from gan_jax.training.run_log import RunLog
from gan_jax.training.sampler import Samples
from gan_jax.training.schedule import Schedule
from gan_jax.training.setup import TrainingRun, set_up
from gan_jax.training.state import State, next_attempt
from gan_jax.training.step import Metrics
from gan_jax.training.stopping import StopRequested, interruptible
from gan_jax.training.strategies import limit_in_flight, prefetch
from gan_jax.training.summary import print_outcome, print_summary

# Upper limit of the attempts of a run that diverges.
MAX_ATTEMPTS = 5


class _LogRecord(NamedTuple):
  """The data that is logged after iteration `step`.

  Attributes:
    step, images: Iterations, and reals shown to D, so far.
    metrics: Those of the dispatches since the last line; if empty, no line is
      written.
    samples: Samples of the EMA of G.
    draw: Whether to write the sample grid.
    evaluated: The result of an evaluation, if there was one.
  """

  step: int
  images: int
  metrics: list[Metrics]
  samples: Samples
  draw: bool
  evaluated: Evaluated | None = None


def train(
  config: ConfigDict,
  workdir: str | Path,
  *,
  settings: Mapping[str, Any] | None = None,
  latest: Path | None = None,
) -> State:
  """Trains the run in `workdir`; resumes it if it exists.

  Args:
    config: The config of the experiment.
    workdir: Folder of the run: config, metrics, samples, checkpoints.
    settings: The settings that differ from the experiment's file, by key, for
      the printed summary.
    latest: Path of a symbolic link to `workdir`, made when training starts.

  Returns:
    The state after the last iteration.

  Raises:
    UserError: The config, the data or the workdir is invalid, or training
      diverged.
    KeyboardInterrupt: Ctrl-C was pressed; the state is saved.
    Preempted: SIGTERM was received; the state is saved.
  """
  compile_cache.enable()
  with (
    set_up(config, workdir, settings or {}, latest) as run,
    interruptible() as stop_requested,
  ):
    state = _train_with_rollback(run, stop_requested)
    run.checkpoints.finish()
  print_outcome(config, workdir)
  return state


def _train_with_rollback(
  run: TrainingRun, stop_requested: StopRequested
) -> State:
  """Trains to the end; rolls back after a divergence if configured."""
  state, initial_lines = run.start()
  print_summary(
    run.config,
    run.workdir,
    run.schedule,
    run.source,
    state,
    run.sizes,
    run.settings,
    run.evaluations,
    initial_lines,
  )
  first_attempt = int(devices.fetch(state.attempt))
  while True:
    attempt = int(devices.fetch(state.attempt))
    try:
      return _loop(run, state, attempt, stop_requested)
    except Diverged as error:
      attempt += 1
      stop = stop_requested()
      if run.config.on_divergence == 'stop' or (
        attempt - first_attempt > MAX_ATTEMPTS
      ):
        raise
      if stop is not None:
        raise _stop_error(stop, 'at its last checkpoint') from error
      if devices.is_main():
        warn(f'{error}. Rolling back to it, with other data and latents')
      key = jax.random.key(run.config.seed)
      restart = partial(next_attempt, key=key, attempt=attempt)
      state = devices.create(restart, run.start()[0])


def _loop(
  run: TrainingRun, state: State, attempt: int, stop_requested: StopRequested
) -> State:
  """Trains from `state` to the end: dispatches, logs, evaluates and saves."""
  config, schedule = run.config, run.schedule
  step = int(devices.fetch(state.step))
  # The first evaluation precedes training, so that a failure shows at once.
  missed = _evaluate_missed(run, state, step, stop_requested)
  state = run.strategy.shard_state(state)
  batches = index_batches(config, run.source, schedule, step, attempt)
  run_log = _run_log(run, step, attempt)
  total_images = schedule.images(schedule.total_steps)
  checks = HealthChecks(quiet_until=total_images // 20)
  log = partial(_log, run, run_log, checks)
  precompiler = Precompiler(schedule, partial(_compile, run))
  stop = None
  with closing(batches), run_log:
    if missed is not None:
      _record_missed(run, run_log, missed)
    if step == 0:
      samples = _sample(run, state, 0)
      log(_LogRecord(0, 0, [], samples, draw=True))
    pending, record = [], None
    for batch in prefetch(run.strategy.shard, batches):
      phases = schedule.dispatch(step)
      state, metrics = run.train_dispatch(
        state, run.dataset, batch, phases, run.frozen
      )
      precompiler.look_ahead(step, state)
      pending.append(metrics)
      limit_in_flight(pending)
      if record is not None:
        log(record)  # while the devices compute
        record = None
      before, step = step, step + schedule.steps_per_dispatch
      precompiler.wait(step)

      stop = stop_requested()
      due = _due_after(run, before, step, stop is not None)
      if due.line or due.draw:
        samples = _sample(run, state, step)
        images, metrics = schedule.images(step), pending if due.line else []
        record = _LogRecord(step, images, metrics, samples, due.draw)
        pending = [] if due.line else pending
      if due.evaluate:
        ema = run.strategy.unshard_state(state.ema)
        evaluated = run.evaluations.measure(ema, step, stop_requested)
        record, stop = record._replace(evaluated=evaluated), evaluated.stop
      if due.save:
        line, record = log(record), None
        run_log.keep()
        saved = run.strategy.unshard_state(state)
        run.checkpoints.save(step, saved, line, config.to_dict())
      if stop is not None:
        break
  state = run.strategy.unshard_state(state)
  if stop is not None and not _is_complete(run, step):
    run.checkpoints.finish()
    raise _stop_error(stop, f'saved at iteration {step:,}')
  return state


def _run_log(run: TrainingRun, step: int, attempt: int) -> RunLog:
  """Opens the log of a run that starts or resumes at `step`."""
  schedule = run.schedule
  try:
    return RunLog(
      run.workdir if devices.is_main() else None,
      step=step,
      attempt=attempt,
      images=schedule.images(step),
      total_images=schedule.images(schedule.total_steps),
      wandb=run.config.wandb,
      animated=has_points(run.config),
    )
  except OSError as error:
    raise UserError(
      f'cannot write to {run.workdir}: {error.strerror}'
    ) from error


def _sample(run: TrainingRun, state: State, step: int) -> Samples:
  """Computes the samples of a state."""
  whole = run.strategy.replicate_state(_sampled(state))
  return run.sampler.sample(whole, run.examples, run.schedule.phase(step))


def _sampled(state: State) -> State:
  """Returns what the samples depend on: a state without that of training."""
  return state._replace(opt_state=(), game_state=())


def _compile(run: TrainingRun, step: int, state: State) -> None:
  """Compiles the programs of the segment that begins at `step`."""
  phases = run.schedule.dispatch(step)
  source = repeat_first(run.source)  # its data may be far from those read now
  batch = index_batch_maker(run.config, source, run.schedule)(step)
  batch = run.strategy.shard(batch)
  lowered = run.train_dispatch.lower(
    state, run.dataset, batch, phases, run.frozen
  )
  del batch  # only its shapes were needed
  lowered.compile()
  phase = run.schedule.phase(step)
  whole = _sampled(state)
  if run.config.parallel != 'pmap':  # its arrays are those of its process
    whole = devices.replicated_shapes(whole)
  run.sampler.sample.lower(whole, run.examples, phase).compile()


def _log(
  run: TrainingRun, run_log: RunLog, checks: HealthChecks, record: _LogRecord
) -> dict[str, float | int]:
  """Writes the metrics and the sample grid of a log record.

  Waits for the devices.

  Returns:
    The line of metrics; empty if none is written.

  Raises:
    Diverged: A metric is not finite.
  """
  step, images, metrics, samples, draw, evaluated = record
  schedule, line = run.schedule, {}
  if metrics:
    means = mean_metrics(metrics, step, schedule.steps_per_dispatch)
    diversity = float(devices.fetch(samples.diversity))
    means['gen/diversity'] = diversity / (run.data_diversity or 1.0)
    line = {**means, **scheduled_values(schedule, run.sizes, step - 1)}
    seconds = 0.0
    if evaluated is not None:
      seconds = evaluated.seconds
      if evaluated.stop is None:
        run.evaluations.record(evaluated)
        line = {**line, **evaluated.means}
    until = schedule.images(schedule.segment_at(step - 1).end_step)
    run_log.log(step, images, line, until, seconds)
    if devices.is_main():
      checks.read(step, images, means)
  if draw:
    drawn = devices.fetch(samples.drawn)
    if devices.is_main():
      for name, picture in run.sampler.draw(drawn).items():
        run_log.samples(step, images, picture, name)
  return line


def _stop_error(stop: signal.Signals | None, saved: str) -> BaseException:
  """Returns the exception of a run that stops on request."""
  kind = Preempted if stop == signal.SIGTERM else KeyboardInterrupt
  return kind(saved)


class _Due(NamedTuple):
  """What follows a dispatch: metrics, a sample grid, an evaluation, a save."""

  line: bool
  draw: bool
  evaluate: bool
  save: bool


def _due_after(run: TrainingRun, before: int, now: int, stopping: bool) -> _Due:
  """Returns what is due after the dispatch from `before` to `now`."""
  config, schedule = run.config, run.schedule
  passed = partial(_passed, schedule, before, now)
  # A run that stops saves at once, without an evaluation.
  evaluate = passed(config.evaluation.every_images) and not stopping
  save = passed(config.checkpoint_every_images) or stopping
  save = save or evaluate or now in schedule.stage_ends
  # A checkpoint also ends the current line of metrics, so that a resumed run
  # averages over the same intervals.
  every = config.log_every_steps
  line = save or before // every < now // every
  return _Due(line, passed(config.sample_every_images), evaluate, save)


def _passed(
  schedule: Schedule, before: int, now: int, every_images: int | None
) -> bool:
  """Returns whether a multiple of `every_images` was passed or the run ends.

  `every_images` None means never.
  """
  if every_images is None:
    return False
  multiples = schedule.images(before) // every_images
  passed = multiples < schedule.images(now) // every_images
  return passed or now == schedule.total_steps


def _evaluate_missed(
  run: TrainingRun, state: State, step: int, stop_requested: StopRequested
) -> Evaluated | None:
  """Evaluates the state if an evaluation was due at `step` but is missing.

  Raises:
    KeyboardInterrupt, Preempted: A stop was requested meanwhile.
  """
  if run.evaluations is None:
    return None
  run.evaluations.forget_after(step)  # or an old score hides a missing one
  continues_another = step > 0 and run.initial is not None
  if continues_another or not _is_missing(run, step):
    return None
  evaluated = run.evaluations.measure(state.ema, step, stop_requested)
  if evaluated.stop is not None:
    saved = f'saved at iteration {step:,}' if step else 'before iteration 1'
    raise _stop_error(evaluated.stop, saved)
  return evaluated


def _record_missed(
  run: TrainingRun, run_log: RunLog, missed: Evaluated
) -> None:
  """Adds an evaluation to the metrics of its iteration and to the scores."""
  score = missed.scores[0]
  run_log.amend(score.step, score.images, missed.means)
  run_log.keep()
  run.evaluations.record(missed)  # last: a kill before it repeats all of this


def _is_missing(run: TrainingRun, step: int) -> bool:
  """Returns whether an evaluation was due at `step` but is not recorded."""
  if run.evaluations is None:
    return False
  every = run.config.evaluation.every_images
  before = step - run.schedule.steps_per_dispatch
  due = step == 0 or _passed(run.schedule, before, step, every)
  return due and not run.evaluations.is_recorded(step)


def _is_complete(run: TrainingRun, step: int) -> bool:
  """Returns whether training and evaluations are complete."""
  return step >= run.schedule.total_steps and not _is_missing(run, step)
