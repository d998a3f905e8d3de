"""Drives a sweep: one process that plans trials, watches them, and reports.

The engine, Optuna, plans; a thread for each trial at a time waits for it. What
a trial is, trial.py says; how the trials stand, study.py. Nothing is kept here:
a driver that is killed is replaced by the same command.
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
from gan_jax.sweep import report, study
from gan_jax.sweep import space as spaces
from gan_jax.sweep.executors import Machines
from gan_jax.sweep.plan import Plan
from gan_jax.sweep.process import Place
from gan_jax.sweep.show import Show
from gan_jax.sweep.trial import Ending, Places, Point, Stop, Tail, Watch, play
from gan_jax.training.checkpoint import folder as checkpoints_of

# So many first trials that fail alike stop the sweep.
ALIKE = 3
# How often it is asked whether what another driver has in hand is over.
WAIT_SECONDS = 2.0


class _Ended(Exception):
  """A trial that has no score: it failed, or is left for another time."""


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
  **machines: Any,
) -> None:
  """Runs a sweep of an experiment, from where it was left if it was begun.

  Args:
    config: The experiment's, with what was typed.
    workdir: Holds the whole sweep: its book, its table, its trials.
    launcher: launch.py, where it is.
    experiment: FILE.py or FILE.py:ARGUMENT.
    overrides: What was typed, by key.
    sweep: Which of the experiment's; None: the only one.
    trials: Of a search, other than it says.
    dry_run: Whether to print the trials' commands alone.
    storage: The URL of a database; None: a file in `workdir`.
    **machines: Where trials run, as of `Machines`; None: its default.

  Raises:
    UserError: It cannot be run, or all that was run has failed.
    KeyboardInterrupt: Ctrl-C was pressed; the trials are saved.
    Preempted: SIGTERM came; the trials are saved.
  """
  study.hush()
  workdir = workdir.rstrip('/')
  given = {name: value for name, value in machines.items() if value is not None}
  elsewhere = given.get('executor', 'local') != 'local'
  plan = plans.make(experiment, config, overrides, sweep, trials, elsewhere)
  places = Machines(**given).places(launcher)
  if elsewhere and not (is_remote(workdir) or Path(workdir).is_absolute()):
    raise UserError(
      f'--workdir={workdir} is of this machine: name a folder that the driver '
      'and all hosts reach, gs://BUCKET/... or /SHARED/...'
    )
  if dry_run:
    report.announce(plan, workdir, places)
    report.rehearse(plan, workdir, places)
    return
  if storage is None and is_remote(workdir):
    raise UserError(
      f'{workdir} cannot hold a database: add --storage=sqlite:///FILE, on '
      'this machine, or the URL of one that several drivers can reach'
    )
  report.check(plan, workdir)
  # A database that cannot be reached is told before anything is written.
  book = storage and study.open_study(plan, storage, workdir, alone=False)
  report.announce(plan, workdir, places)
  report.begin(plan, workdir)
  with nullcontext() if storage else _alone(workdir):
    if not storage:
      url = f'sqlite:///{Path(workdir, "sweep.db").absolute()}'
      book = study.open_study(plan, url, 'sweep', alone=True)
    study.find_lost(book, alone=storage is None)
    places = _ready(places)
    with held(local(workdir), lambda: None, '.entering.lock'):
      study.enter(book, plan, workdir, again=True)
    _run(_Driver(plan, workdir, book, places))
    report.say(workdir, report.draw(book, plan, workdir))


@contextmanager
def _alone(workdir: str) -> Iterator[None]:
  """Holds the sweep: of two drivers each would take the machine for its own."""

  def busy() -> None:
    raise UserError(
      f'{workdir} is in use by a sweep that is still going: stop it first, or '
      'give both --storage=URL'
    )

  with held(workdir, busy):
    yield


def _run(driver: '_Driver') -> None:
  """Runs the trials; raises what tells that it was stopped."""
  with driver.show, _told(driver.stop) as told:
    driver.drive()
  if told:
    saved = 'the trials that ran are saved'
    left = saved if len(told) == 1 else 'the trials that ran were killed'
    stopped = Preempted if told[0] == signal.SIGTERM else KeyboardInterrupt
    raise stopped(left)
  driver.check()


def _ready(places: list[Place]) -> list[Place]:
  """Those where something can run; what a lost driver left there has ended."""
  with ThreadPoolExecutor(len(places)) as pool:
    problems = list(pool.map(lambda place: place.problem(), places))
  ready = []
  for place, problem in zip(places, problems, strict=True):
    if problem:
      warn(f'{place.name} is left out: {problem}')
    else:
      ready.append(place)
  if not ready:
    raise UserError(f'nothing can run on {places[0].name}: {problems[0]}')
  return ready


@contextmanager
def _told(stop: Stop) -> Iterator[list[signal.Signals]]:
  """Ctrl-C and SIGTERM stop the trials, that save; twice: at once."""
  told: list[signal.Signals] = []

  def tell(number: int, _: Any) -> None:
    told.append(signal.Signals(number))
    if len(told) > 1:
      stop.at_once.set()
    else:
      print('\nStopping the trials, which save (again: at once)', flush=True)
    stop.asked.set()

  handled = signal.SIGINT, signal.SIGTERM
  before = {number: signal.signal(number, tell) for number in handled}
  try:
    yield told
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


class _Driver:
  """What the threads share that wait for trials."""

  def __init__(
    self, plan: Plan, folder: str, book: optuna.Study, places: list[Place]
  ):
    self._plan, self._folder, self._book = plan, folder, book
    self._places, self._parallel = Places(places), len(places)
    self._logs = Path(local(folder)) / 'logs'
    self._lock = threading.RLock()
    self._failures: list[str] = []
    self._succeeded = study.count(book, study.SETTLED)
    trials = len(plans.entries(plan)) - self._succeeded
    self.show = Show(plan.score, plan.total_images, trials, len(places))
    self.stop = Stop()

  def drive(self) -> None:
    """Runs trials until none is left, here or with another driver."""
    self._write()
    waits = False
    while not self.stop.asked.is_set():
      study.find_lost(self._book, alone=False)
      waiting = study.count(self._book, [TrialState.WAITING])
      if waiting:
        self._optimize(waiting)
      elif study.count(self._book, [TrialState.RUNNING]):
        if not waits:
          print('Waiting for the trials of another driver', flush=True)
        waits = True
        self.stop.asked.wait(WAIT_SECONDS)
      else:
        break

  def _optimize(self, trials: int) -> None:
    """Has the engine run so many; its heartbeats go as long as this does."""
    try:
      self._book.optimize(
        self._objective,
        n_trials=trials,
        n_jobs=self._parallel,
        catch=(_Ended,),
        callbacks=[lambda *_: self._write()],
      )
    except ValueError as error:
      if 'Cannot tell a' not in str(error):
        raise
      raise UserError(
        f'no heartbeat of this driver came for {study.GRACE_SECONDS} s, and a '
        'trial was taken for lost: the same command goes on'
      ) from error

  def _write(self) -> None:
    with self._lock:
      report.write_table(self._book, self._plan, self._folder)

  def check(self) -> None:
    """Refuses to report where nothing has come to an end.

    Raises:
      UserError: All that was run has failed.
    """
    if self._failures and not self._succeeded:
      alike = len(set(self._failures)) == 1
      raise UserError(
        f'{len(self._failures)} trials have failed, '
        f'{"all by" if alike else "the last by"}: {self._failures[-1]} (what '
        f'they said is in {self._logs}; the same command tries them again)'
      )

  def _objective(self, trial: optuna.Trial) -> float:
    """One trial of the engine's: its score, when it has come to its end."""
    if study.is_surplus(self._book, trial):
      trial.set_user_attr('surplus', True)
      raise _Ended
    trial.set_user_attr('begun', trial.number)
    try:
      return self._play(trial, study.slot_of(trial))
    except (_Ended, optuna.TrialPruned):
      raise
    except BaseException:
      self.stop.asked.set()  # the others are not to go on for days
      raise
    finally:
      if self.stop.asked.is_set():
        self._book.stop()

  def _play(self, trial: optuna.Trial, slot: int) -> float:
    overrides = spaces.suggest(trial, self._plan.space)
    with self._lock:
      self._enter_seeds()
    self.show.begin(slot, overrides)
    began = time.monotonic()
    workdir = study.workdir_of(self._folder, slot)
    tail = Tail(workdir, self._plan.score)
    ending = play(
      [*self._plan.flags(overrides), f'--workdir={workdir}'],
      workdir,
      self._logs / f'{slot:04}.txt',
      self._places,
      Watch(
        tail,
        self._watcher(trial, slot),
        lambda state: self.show.update(slot, state=state),
      ),
      self.stop,
    )
    if ending.how == 'done' and not _scores(tail):
      names = ', '.join(sorted(tail.names)) or 'nothing'
      line = f'{self._plan.score} was never logged (there: {names})'
      ending = Ending('failed', line)
    self._note(trial, slot, ending, tail, time.monotonic() - began)
    return self._value(trial, ending, tail)

  def _enter_seeds(self) -> None:
    """What follows from the setting that the engine has chosen."""
    if self._plan.settings is not None and 'seed' in self._plan.space:
      study.enter(self._book, self._plan, self._folder, again=False)

  def _watcher(
    self, trial: optuna.Trial, slot: int
  ) -> Callable[[list[Point]], bool]:
    """(points) -> whether it is to be pruned: reports what is new."""
    reported: set[int] = set()

    def hopeless(points: list[Point]) -> bool:
      news = False
      for point in points:
        if point.score is None:
          continue
        step = self._step(point.images)
        if step not in reported:
          reported.add(step)
          trial.report(point.score, step)
          news = True
      scores = [point.score for point in points if point.score is not None]
      score = scores[-1] if scores else None
      images = points[-1].images if points else 0
      self.show.update(slot, images=images, score=score)
      return news and bool(trial.should_prune())

    return hopeless

  def _step(self, images: int) -> int:
    """Where trials are compared: evaluations at so many images, or a little
    more, where the batch does not divide it.
    """
    every = self._plan.every_images
    return images // every * every if every and images >= every else images

  def _note(
    self,
    trial: optuna.Trial,
    slot: int,
    ending: Ending,
    tail: Tail,
    seconds: float,
  ) -> None:
    """Writes down how a trial has ended."""
    images = max((point.images for point in tail.points), default=0)
    before = trial.user_attrs.get('seconds', 0.0)
    trial.set_user_attr('ended', ending.how)
    trial.set_user_attr('line', ending.line)
    trial.set_user_attr('images', images)
    trial.set_user_attr('seconds', round(before + seconds, 1))
    if ending.how == 'pruned' and not self._plan.keep_pruned:
      kept = checkpoints_of(study.workdir_of(self._folder, slot))
      if kept.exists():
        kept.rmtree()
    told = {'line': ending.line, 'images': images}
    if ending.how == 'left':
      self.show.update(slot, state='stopped')
    else:
      self.show.end(slot, seconds, state=ending.how, **told)

  def _value(self, trial: optuna.Trial, ending: Ending, tail: Tail) -> float:
    """What the engine is told of a trial that has ended.

    Raises:
      _Ended: It has no score.
      optuna.TrialPruned: It was stopped, since it was hopeless.
    """
    if ending.how == 'left':
      # For another driver, or for the same command.
      study.retry()(self._book, self._book.trials[trial.number])
      raise _Ended
    if ending.how == 'failed':
      with self._lock:
        self._failures.append(ending.line)
        alike = len(set(self._failures)) == 1
        if len(self._failures) >= ALIKE and alike and not self._succeeded:
          self.stop.asked.set()
      raise _Ended
    with self._lock:
      self._succeeded += 1
    if ending.how == 'pruned':
      raise optuna.TrialPruned
    if ending.how == 'diverged':
      return math.inf if self._plan.goal == 'min' else -math.inf
    return _scores(tail)[-1]


def _scores(tail: Tail) -> list[float]:
  return [point.score for point in tail.points if point.score is not None]
