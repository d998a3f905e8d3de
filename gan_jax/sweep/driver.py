"""Runs the trials of a sweep: asks Optuna for them, and tells it their scores.

All of it happens in one thread, which looks at each running trial in turn.
"""

import math
import time
from pathlib import Path
from typing import NamedTuple

import optuna
from optuna.trial import TrialState

from gan_jax.errors import UserError
from gan_jax.files import local
from gan_jax.sweep import plan as plans
from gan_jax.sweep import report
from gan_jax.sweep import space as spaces
from gan_jax.sweep import study as studies
from gan_jax.sweep.executors import Executor
from gan_jax.sweep.plan import Plan
from gan_jax.sweep.progress import Progress
from gan_jax.sweep.trial import (
  LoggedPoint,
  MetricsReader,
  StopRequest,
  Trial,
  TrialResult,
)
from gan_jax.training.checkpoint import folder as checkpoint_folder

# The sweep stops when this many trials have failed with the same message and
# no trial has succeeded.
SAME_FAILURES = 3
# The interval at which the driver polls its trials.
LOOK_SECONDS = 0.1


class _Asked(NamedTuple):
  """A trial of the Optuna study, and its run."""

  asked: optuna.Trial
  run: Trial


class Driver:
  """Runs the trials that a study lacks."""

  def __init__(
    self, plan: Plan, folder: str, study: optuna.Study, executor: Executor
  ):
    self._plan, self._folder, self._study = plan, folder, study
    self._executor, self._running = executor, dict[int, _Asked]()
    self._left = studies.left_running(study)
    self._logs = Path(local(folder)) / 'logs'
    self._failures: list[str] = []
    self._succeeded = studies.count(study, studies.FINISHED)
    remaining = len(plans.planned_trials(plan)) - self._succeeded
    self.progress = Progress(
      plan.score, plan.total_images, remaining, executor.parallel()
    )
    self.stop, self._is_cut_short = StopRequest(), True

  def drive(self) -> None:
    """Runs trials until all have ended, or until a stop is requested."""
    self._write_table()
    try:
      while self._begin() or self._running:
        self._step()
        time.sleep(LOOK_SECONDS)
      self._is_cut_short = self.stop.asked
    finally:  # after an error, nothing else would stop the trials
      self.stop.asked = True
      while self._running:
        self._step()
        time.sleep(LOOK_SECONDS)

  def _begin(self) -> bool:
    """Begins trials where there is room; returns whether more are waiting."""
    while not self.stop.asked:
      waiting = studies.count(self._study, (TrialState.WAITING,))
      if not (self._left or waiting):
        return False
      if len(self._running) >= self._executor.parallel():
        return True
      # Trials that still run on a cluster occupy the room of others.
      asked = self._left.pop(0) if self._left else self._study.ask()
      asked.set_user_attr('ended', None)
      trial_id = asked.user_attrs[studies.TRIAL_ID]
      overrides = spaces.suggest(asked, self._plan.space)
      inherited = studies.inherited(self._plan, self._folder, asked)
      settings = {**overrides, **inherited}
      self._enqueue()
      workdir = studies.workdir_of(self._folder, trial_id)
      self._running[trial_id] = _Asked(
        asked,
        Trial(
          [*self._plan.flags(settings), f'--workdir={workdir}'],
          workdir,
          self._logs / f'{trial_id:04}.txt',
          self._executor,
          MetricsReader(workdir, self._plan.score),
          lambda points, i=trial_id: self._should_prune(i, points),
        ),
      )
      self.progress.begin(trial_id, overrides)
    return False

  def _enqueue(self) -> None:
    """Enqueues what is known now, such as other seeds of a chosen setting."""
    studies.enqueue(self._study, self._plan, self._folder, retry_failed=False)

  def _step(self) -> None:
    for trial_id, (asked, run) in list(self._running.items()):
      result = run.step(self.stop)
      self.progress.update(trial_id, state=run.state or 'waiting')
      if result is not None:
        del self._running[trial_id]
        self._end(trial_id, asked, run, result)

  def _should_prune(self, trial_id: int, points: list[LoggedPoint]) -> bool:
    """Reports new scores; returns whether to prune the trial."""
    asked = self._running[trial_id].asked
    known = self._study.trials[asked.number].intermediate_values
    scored = [point for point in points if point.score is not None]
    steps = {self._report_step(point.images): point.score for point in scored}
    new = {step: x for step, x in steps.items() if step not in known}
    for step, score in new.items():
      asked.report(score, step)
    if not asked.user_attrs.get('resolved'):
      self._set_resolved(trial_id, asked)
    score = scored[-1].score if scored else None
    images = points[-1].images if points else 0
    self.progress.update(trial_id, images=images, score=score)
    return bool(new) and bool(asked.should_prune())

  def _report_step(self, images: int) -> int:
    """Rounds `images` down to a step at which trials can be compared.

    Trials with different batch sizes evaluate at slightly different numbers of
    images.
    """
    every = self._plan.every_images
    return images // every * every if every and images >= every else images

  def _set_resolved(self, trial_id: int, asked: optuna.Trial) -> None:
    workdir = studies.workdir_of(self._folder, trial_id)
    asked.set_user_attr('resolved', report.resolved(workdir, self._plan))

  def _end(
    self, trial_id: int, asked: optuna.Trial, run: Trial, result: TrialResult
  ) -> None:
    """Records how a trial ended."""
    scores, seconds = run.metrics.scores(), time.monotonic() - run.begun
    if result.how == 'done' and not scores:
      names = ', '.join(sorted(run.metrics.names)) or 'nothing'
      line = f'{self._plan.score} was never logged (logged: {names})'
      result = TrialResult('failed', line)
    images, (how, line) = run.metrics.images(), result
    before = asked.user_attrs.get('seconds', 0.0)
    asked.set_user_attr('seconds', round(before + seconds, 1))
    for key, value in {'ended': how, 'line': line, 'images': images}.items():
      asked.set_user_attr(key, value)
    self._set_resolved(trial_id, asked)
    self._tell(asked, how, scores)
    if how == 'pruned' and not self._plan.keep_pruned:
      folder = checkpoint_folder(studies.workdir_of(self._folder, trial_id))
      if folder.exists():
        folder.rmtree()
    if how == 'failed':
      self._failures.append(line)
      same = len(set(self._failures)) == 1 and not self._succeeded
      self.stop.asked |= same and len(self._failures) >= SAME_FAILURES
    elif how != 'stopped':
      self._succeeded += 1
    self.progress.end(trial_id, seconds, state=how, line=line, images=images)
    self._enqueue()
    self._write_table()

  def _tell(self, asked: optuna.Trial, how: str, scores: list[float]) -> None:
    """Tells Optuna the score of a trial, if it has one."""
    if how == 'failed':
      self._study.tell(asked, state=TrialState.FAIL)
    elif how == 'pruned':
      self._study.tell(asked, state=TrialState.PRUNED)
    elif how != 'stopped':  # the next driver continues it
      worst = math.inf if self._plan.goal == 'min' else -math.inf
      self._study.tell(asked, worst if how == 'diverged' else scores[-1])

  def _write_table(self) -> None:
    report.write_table(self._study, self._plan, self._folder)

  def check(self) -> None:
    """Refuses to report a sweep without a finished trial.

    Raises:
      UserError: All trials, or all members of a generation, have failed.
    """
    known = studies.trials_by_id(self._study)
    planned = len(plans.planned_trials(self._plan))
    is_short = len(known) < planned and not self._is_cut_short
    if self._plan.population and is_short:
      generation = studies.generation(self._plan, max(known, default=0))
      raise UserError(
        f'all members of generation {generation} have diverged or failed '
        f'(their output is in {self._logs})'
      )
    if self._failures and not self._succeeded:
      same = len(set(self._failures)) == 1
      raise UserError(
        f'{len(self._failures)} trials have failed, '
        f'{"all with" if same else "the last with"}: {self._failures[-1]} '
        f'(their output is in {self._logs}; the same command tries them again)'
      )
