"""Runs the trials of a sweep: what the threads that wait for trials share.

Optuna's sampler plans; one thread for each parallel trial waits for its trial.
"""

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path

import optuna
from optuna.trial import TrialState

from gan_jax.errors import UserError
from gan_jax.files import local
from gan_jax.sweep import plan as plans
from gan_jax.sweep import report
from gan_jax.sweep import space as spaces
from gan_jax.sweep import study as studies
from gan_jax.sweep.plan import Plan
from gan_jax.sweep.process import Worker
from gan_jax.sweep.progress import Progress
from gan_jax.sweep.trial import (
  LoggedPoint,
  MetricsReader,
  Monitor,
  StopRequest,
  TrialResult,
  WorkerPool,
  run_trial,
)
from gan_jax.training.checkpoint import folder as checkpoint_folder

# The sweep stops when this many trials have failed with the same message and
# no trial has succeeded.
SAME_FAILURES = 3
# How often the driver checks whether another driver's trials have ended.
WAIT_SECONDS = 2.0


class _NoScore(Exception):
  """A trial has no score: it failed, was stopped, or must not run."""


class Driver:
  """What the threads that wait for trials share."""

  def __init__(
    self, plan: Plan, folder: str, study: optuna.Study, workers: list[Worker]
  ):
    self._plan, self._folder, self._study = plan, folder, study
    self._pool, self._parallel = WorkerPool(workers), len(workers)
    self._logs = Path(local(folder)) / 'logs'
    self._lock = threading.RLock()
    self._failures: list[str] = []
    self._succeeded = studies.count(study, studies.FINISHED)
    remaining = len(plans.planned_trials(plan)) - self._succeeded
    self.progress = Progress(
      plan.score, plan.total_images, remaining, len(workers)
    )
    self.stop = StopRequest()

  def drive(self) -> None:
    """Runs trials until all have ended, here or with another driver."""
    self._write_table()
    announced = False
    while not self.stop.asked.is_set():
      studies.requeue_lost(self._study, only_driver=False)
      waiting = studies.count(self._study, [TrialState.WAITING])
      if waiting:
        self._optimize(waiting)
      elif studies.count(self._study, [TrialState.RUNNING]):
        if not announced:
          print('Waiting for the trials of another driver', flush=True)
        announced = True
        self.stop.asked.wait(WAIT_SECONDS)
      else:
        break

  def _optimize(self, num_trials: int) -> None:
    """Lets Optuna run trials; it writes their heartbeats meanwhile."""
    try:
      self._study.optimize(
        self._objective,
        n_trials=num_trials,
        n_jobs=self._parallel,
        catch=(_NoScore,),
        callbacks=[lambda *_: self._write_table()],
      )
    except ValueError as error:
      if 'Cannot tell a' not in str(error):
        raise
      raise UserError(
        'this driver wrote no heartbeat for '
        f'{studies.GRACE_SECONDS} seconds, so another driver took over one of '
        'its trials: repeat the command to resume'
      ) from error

  def _write_table(self) -> None:
    with self._lock:
      report.write_table(self._study, self._plan, self._folder)

  def check(self) -> None:
    """Refuses to report a sweep without a finished trial.

    Raises:
      UserError: All trials have failed.
    """
    if self._failures and not self._succeeded:
      same = len(set(self._failures)) == 1
      raise UserError(
        f'{len(self._failures)} trials have failed, '
        f'{"all with" if same else "the last with"}: {self._failures[-1]} '
        f'(their output is in {self._logs}; the same command tries them again)'
      )

  def _objective(self, trial: optuna.Trial) -> float:
    """Runs one trial for Optuna and returns its score."""
    if studies.is_duplicate(self._study, trial):
      trial.set_user_attr('surplus', True)
      raise _NoScore
    trial.set_user_attr('begun', trial.number)
    try:
      return self._run_trial(trial, studies.trial_id_of(trial))
    except (_NoScore, optuna.TrialPruned):
      raise
    except BaseException:
      self.stop.asked.set()  # so that the other trials do not run on for days
      raise
    finally:
      if self.stop.asked.is_set():
        self._study.stop()

  def _run_trial(self, trial: optuna.Trial, trial_id: int) -> float:
    overrides = spaces.suggest(trial, self._plan.space)
    with self._lock:
      self._enqueue_seeds()
    self.progress.begin(trial_id, overrides)
    start = time.monotonic()
    workdir = studies.workdir_of(self._folder, trial_id)
    metrics = MetricsReader(workdir, self._plan.score)
    result = run_trial(
      [*self._plan.flags(overrides), f'--workdir={workdir}'],
      workdir,
      self._logs / f'{trial_id:04}.txt',
      self._pool,
      Monitor(
        metrics,
        self._make_should_prune(trial, trial_id),
        lambda state: self.progress.update(trial_id, state=state),
      ),
      self.stop,
    )
    if result.how == 'done' and not metrics.scores():
      names = ', '.join(sorted(metrics.names)) or 'nothing'
      line = f'{self._plan.score} was never logged (logged: {names})'
      result = TrialResult('failed', line)
    seconds = time.monotonic() - start
    self._record(trial, trial_id, result, metrics.images(), seconds)
    return self._score_of(trial, result, metrics)

  def _enqueue_seeds(self) -> None:
    """Enqueues the other seeds of a setting that the sampler has chosen."""
    if self._plan.settings is not None and 'seed' in self._plan.space:
      studies.enqueue(self._study, self._plan, self._folder, retry_failed=False)

  def _make_should_prune(
    self, trial: optuna.Trial, trial_id: int
  ) -> Callable[[list[LoggedPoint]], bool]:
    """Makes (points) -> whether to prune; each call reports new scores."""
    reported: set[int] = set()

    def should_prune(points: list[LoggedPoint]) -> bool:
      has_new = False
      scored = [point for point in points if point.score is not None]
      for point in scored:
        step = self._report_step(point.images)
        if step not in reported:
          reported.add(step)
          trial.report(point.score, step)
          has_new = True
      score = scored[-1].score if scored else None
      images = points[-1].images if points else 0
      self.progress.update(trial_id, images=images, score=score)
      return has_new and bool(trial.should_prune())

    return should_prune

  def _report_step(self, images: int) -> int:
    """Rounds `images` down to a step at which trials can be compared.

    Trials with different batch sizes evaluate at slightly different numbers of
    images.
    """
    every = self._plan.every_images
    return images // every * every if every and images >= every else images

  def _record(
    self,
    trial: optuna.Trial,
    trial_id: int,
    result: TrialResult,
    images: int,
    seconds: float,
  ) -> None:
    """Records in the study how a trial ended, and shows it."""
    seconds_before = trial.user_attrs.get('seconds', 0.0)
    trial.set_user_attr('ended', result.how)
    trial.set_user_attr('line', result.line)
    trial.set_user_attr('images', images)
    trial.set_user_attr('seconds', round(seconds_before + seconds, 1))
    folder = studies.workdir_of(self._folder, trial_id)
    trial.set_user_attr('resolved', report.resolved(folder, self._plan))
    if result.how == 'pruned' and not self._plan.keep_pruned:
      folder = checkpoint_folder(studies.workdir_of(self._folder, trial_id))
      if folder.exists():
        folder.rmtree()
    what = {'state': result.how, 'line': result.line, 'images': images}
    if result.how == 'stopped':
      self.progress.update(trial_id, state='stopped')
    else:
      self.progress.end(trial_id, seconds, **what)

  def _score_of(
    self, trial: optuna.Trial, result: TrialResult, metrics: MetricsReader
  ) -> float:
    """Returns the score that Optuna records for a trial that has ended.

    Raises:
      _NoScore: The trial has no score.
      optuna.TrialPruned: The trial was pruned.
    """
    if result.how == 'stopped':
      # For another driver, or for the same command.
      studies.requeue_callback()(self._study, self._study.trials[trial.number])
      raise _NoScore
    if result.how == 'failed':
      with self._lock:
        self._failures.append(result.line)
        same = len(set(self._failures)) == 1
        enough = len(self._failures) >= SAME_FAILURES
        if enough and same and not self._succeeded:
          self.stop.asked.set()
      raise _NoScore
    with self._lock:
      self._succeeded += 1
    if result.how == 'pruned':
      raise optuna.TrialPruned
    if result.how == 'diverged':
      return math.inf if self._plan.goal == 'min' else -math.inf
    return metrics.scores()[-1]
