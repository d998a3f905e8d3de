"""Drives a sweep: one process plans the trials, watches them, and reports.

Optuna's sampler plans; one thread for each parallel trial waits for its trial.
`trial.py` runs a trial; `study.py` keeps the trials' states. The driver itself
keeps nothing: the same command replaces a driver that was killed.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import optuna
from ml_collections import ConfigDict
from optuna.trial import TrialState

from gan_jax.errors import Preempted, UserError, warn
from gan_jax.files import held, is_remote, local
from gan_jax.sweep import plan as plans
from gan_jax.sweep import report
from gan_jax.sweep import space as spaces
from gan_jax.sweep import study as studies
from gan_jax.sweep.executors import ExecutorOptions
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
from gan_jax.training.stopping import handling

# The sweep stops when this many trials have failed with the same message and
# no trial has succeeded.
SAME_FAILURES = 3
# How often the driver checks whether another driver's trials have ended.
WAIT_SECONDS = 2.0


class _NoScore(Exception):
  """A trial has no score: it failed, was stopped, or must not run."""


def sweep(
  config: ConfigDict,
  workdir: str,
  *,
  launcher: str,
  experiment: str,
  overrides: Mapping[str, Any],
  sweep: str | None = None,
  trials: int | None = None,
  dry_run: bool | None = None,
  storage: str | None = None,
  **executor_options: Any,
) -> None:
  """Runs a sweep of an experiment; resumes it if it was begun.

  Args:
    config: The experiment's, with the overrides.
    workdir: Holds the whole sweep: its study, its table, its trials.
    launcher: The path of `launch.py`.
    experiment: FILE.py or FILE.py:ARGUMENT.
    overrides: The overrides that the user typed, by key.
    sweep: The name of one of the experiment's sweeps; None: its only sweep.
    trials: The number of settings of a search; None: the description's.
    dry_run: Whether to print only the commands of the trials.
    storage: The URL of a database; None: a file in `workdir`.
    **executor_options: Fields of `ExecutorOptions`; None: the default.

  Raises:
    UserError: The sweep cannot run, or all its trials have failed.
    KeyboardInterrupt: The user pressed Ctrl-C; the trials are saved.
    Preempted: SIGTERM came; the trials are saved.
  """
  studies.silence_optuna()
  workdir = workdir.rstrip('/')
  options = {k: v for k, v in executor_options.items() if v is not None}
  remote_trials = options.get('executor', 'local') != 'local'
  plan = plans.make(experiment, config, overrides, sweep, trials, remote_trials)
  workers = ExecutorOptions(**options).workers(launcher)
  if remote_trials and not (is_remote(workdir) or Path(workdir).is_absolute()):
    raise UserError(
      f'--workdir={workdir} is a folder of this machine: name a folder that '
      'the driver and all hosts can reach, gs://BUCKET/... or /SHARED/...'
    )
  if dry_run:
    report.print_plan(plan, workdir, workers)
    report.print_commands(plan, workdir, workers)
    return
  if storage is None and is_remote(workdir):
    raise UserError(
      f'{workdir} cannot hold a database: add --storage=sqlite:///FILE, on '
      'this machine, or the URL of a database that several drivers can reach'
    )
  report.check_workdir(plan, workdir)
  # An unreachable database is reported before anything is written.
  study = storage and studies.open_study(
    plan, storage, workdir, only_driver=False
  )
  report.print_plan(plan, workdir, workers)
  report.write_description(plan, workdir)
  with nullcontext() if storage else _lock_sweep(workdir):
    if not storage:
      url = f'sqlite:///{Path(workdir, "sweep.db").absolute()}'
      study = studies.open_study(plan, url, 'sweep', only_driver=True)
    studies.requeue_lost(study, only_driver=storage is None)
    workers = _usable(workers)
    with held(local(workdir), lambda: None, '.entering.lock'):
      studies.enqueue(study, plan, workdir, retry_failed=True)
    _run(_Driver(plan, workdir, study, workers))
    report.print_results(workdir, report.write_plot(study, plan, workdir))


@contextmanager
def _lock_sweep(workdir: str) -> Iterator[None]:
  """Locks the sweep: each of two drivers would use the whole machine."""

  def busy() -> None:
    raise UserError(
      f'{workdir} is in use by a sweep that is still running: stop that sweep '
      'first, or give both the same --storage=URL'
    )

  with held(workdir, busy):
    yield


def _run(driver: '_Driver') -> None:
  """Runs the trials; raises an exception if a signal stopped them."""
  with driver.progress, _stop_on_signals(driver.stop) as received:
    driver.drive()
  if received:
    once = len(received) == 1
    state = 'saved' if once else 'killed'
    is_preempted = received[0] == signal.SIGTERM
    exception = Preempted if is_preempted else KeyboardInterrupt
    raise exception(f'the running trials were {state}')
  driver.check()


def _usable(workers: list[Worker]) -> list[Worker]:
  """Returns the workers on which trials can run.

  When this returns, trials that a lost driver left running there have ended.
  """
  with ThreadPoolExecutor(len(workers)) as pool:
    problems = list(pool.map(lambda worker: worker.problem(), workers))
  usable = []
  for worker, problem in zip(workers, problems, strict=True):
    if problem:
      warn(f'{worker.name} is not used: {problem}')
    else:
      usable.append(worker)
  if not usable:
    raise UserError(f'no trial can run on {workers[0].name}: {problems[0]}')
  return usable


@contextmanager
def _stop_on_signals(stop: StopRequest) -> Iterator[list[signal.Signals]]:
  """Makes Ctrl-C and SIGTERM stop the trials; the second signal kills them.

  Yields:
    The signals received so far.
  """
  received: list[signal.Signals] = []

  def handle(number: int, _: Any) -> None:
    received.append(signal.Signals(number))
    if len(received) > 1:
      stop.at_once.set()
    else:
      print(
        '\nStopping: the trials save their state and exit (repeat to kill them '
        'at once)',
        flush=True,
      )
    stop.asked.set()

  with handling((signal.SIGINT, signal.SIGTERM), handle):
    yield received


class _Driver:
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
