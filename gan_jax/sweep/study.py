"""The Optuna study of a sweep: which trials exist, and their states.

The study is stored in a database. While a driver runs a trial, it writes the
trial's heartbeat there. A driver that is killed cannot report anything, so a
trial whose heartbeat has stopped counts as lost and is enqueued again. Among
Optuna's storages only databases have heartbeats, and SQLite is the database
that is a single file: hence the default. (A journal file is simpler, but would
keep a lost trial `running` for ever.) Only `study.optimize` writes heartbeats.
A driver that holds the lock of the sweep's folder need not wait for a heartbeat
to stop: every trial that was running before is lost.

Each trial of the plan has a trial id, 0, 1, ..., and a workdir named after that
id. Both stay the same however often the trial is enqueued; Optuna's own trial
number does not.
"""

import contextlib
import datetime
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState

from gan_jax.errors import UserError
from gan_jax.sweep.plan import SAMPLERS, Plan, make_pruner, planned_trials

# A trial is lost when its last heartbeat is older than GRACE_SECONDS.
HEARTBEAT_SECONDS, GRACE_SECONDS = 10, 120
# The grace period of the only driver, which never loses a trial of its own. Its
# clock may still leap, for instance after the machine was suspended.
NEVER_SECONDS = 10**9
# SQLite allows one writer at a time; the others wait at most this long.
BUSY_SECONDS = 60

# The user attribute that holds the trial id. (Databases of existing sweeps use
# this name.)
TRIAL_ID = 'slot'
DIRECTIONS = {'min': 'minimize', 'max': 'maximize'}
# Trials in these states are never run again.
FINISHED = TrialState.COMPLETE, TrialState.PRUNED


def silence_optuna() -> None:
  """Silences Optuna's log, and its warning that heartbeats are experimental."""
  optuna.logging.set_verbosity(optuna.logging.ERROR)
  warnings.filterwarnings(
    'ignore', category=optuna.exceptions.ExperimentalWarning
  )


def requeue_callback() -> optuna.storages.RetryHeartbeatStaleTrialCallback:
  """Makes (study, trial) -> None, which enqueues a trial again, unchanged."""
  return optuna.storages.RetryHeartbeatStaleTrialCallback()


def open_study(
  plan: Plan, url: str, name: str, only_driver: bool
) -> optuna.Study:
  """Opens the study of a sweep, and creates it if it does not exist.

  Args:
    plan: The sweep's.
    url: The URL of the database.
    name: The study's name in the database.
    only_driver: Whether no other driver can use the study.

  Raises:
    UserError: The database cannot be reached, or `url` is not a database URL.
  """
  is_sqlite = url.startswith('sqlite')
  kwargs = {'connect_args': {'timeout': BUSY_SECONDS}} if is_sqlite else {}
  try:
    storage = optuna.storages.RDBStorage(
      url,
      engine_kwargs=kwargs,
      heartbeat_interval=HEARTBEAT_SECONDS,
      grace_period=NEVER_SECONDS if only_driver else GRACE_SECONDS,
      heartbeat_stale_trial_callback=requeue_callback(),
    )
    if is_sqlite:
      sqlalchemy.event.listen(storage.engine, 'begin', _lock_database)
    return optuna.create_study(
      study_name=name,
      storage=storage,
      sampler=SAMPLERS[plan.sampler](),
      pruner=make_pruner(plan),
      direction=DIRECTIONS[plan.goal],
      load_if_exists=True,
    )
  except (ImportError, sqlalchemy.exc.SQLAlchemyError) as error:
    line = str(error).splitlines()[0]
    raise UserError(
      f'--storage={url} cannot be opened: it must be the URL of a database, '
      f'for example sqlite:///FILE ({line})'
    ) from error


def _lock_database(connection: sqlalchemy.Connection) -> None:
  """Locks the whole SQLite database at the beginning of a transaction.

  Optuna locks a row before it hands out a trial. SQLite has no row locks, so
  two threads that ask at the same time would get the same trial (optuna#4002).
  """
  connection.exec_driver_sql('BEGIN IMMEDIATE')


def workdir_of(folder: str | Path, trial_id: int) -> str:
  """Returns the workdir of a trial: a path, or a URL if `folder` is one."""
  return f'{str(folder).rstrip("/")}/trials/{trial_id:04}'


def trial_id_of(trial: FrozenTrial | optuna.Trial) -> int | None:
  """Returns the trial id; None: the trial is not part of the plan."""
  return trial.user_attrs.get(TRIAL_ID)


def trials_by_id(study: optuna.Study) -> dict[int, FrozenTrial]:
  """Returns the finished or newest Optuna trial of each trial id, in order."""
  found: dict[int, FrozenTrial] = {}
  for trial in study.get_trials(deepcopy=False):
    trial_id = trial_id_of(trial)
    if trial_id is None or 'surplus' in trial.user_attrs:
      continue
    if trial_id not in found or found[trial_id].state not in FINISHED:
      found[trial_id] = trial
  return dict(sorted(found.items()))


def is_duplicate(study: optuna.Study, trial: optuna.Trial) -> bool:
  """Returns whether a trial must not run: not planned, or already run.

  Two drivers that enqueue the same trial, or ask for the last one at the same
  time, create such a trial.
  """
  trial_id = trial_id_of(trial)
  rivals = (
    other
    for other in study.get_trials(deepcopy=False)
    if trial_id_of(other) == trial_id and other.number != trial.number
  )
  return trial_id is None or any(
    other.state in FINISHED
    or (other.state == TrialState.RUNNING and other.number < trial.number)
    for other in rivals
  )


def enqueue(
  study: optuna.Study, plan: Plan, folder: str | Path, retry_failed: bool
) -> None:
  """Enqueues the planned trials that the study does not have yet.

  Args:
    study: The sweep's.
    plan: Lists the trials.
    folder: The sweep's.
    retry_failed: Whether to enqueue failed trials again.

  Raises:
    UserError: The study has more trials than the plan.
  """
  existing, planned = trials_by_id(study), planned_trials(plan)
  if existing and max(existing) >= len(planned):
    raise UserError(
      f'{folder} already has {max(existing) + 1} trials, more than the '
      f'{len(planned)} requested: set --trials={max(existing) + 1} or more'
    )
  first_id = 0  # of the setting: the trial with its first seed
  for trial_id, params in enumerate(planned):
    first_id = trial_id if params is not None else first_id
    trial = existing.get(trial_id)
    if trial is None:
      if params is None:
        seed_index = trial_id - first_id
        params = _with_seed(plan, existing.get(first_id), seed_index)
      if params is not None:
        attrs = {TRIAL_ID: trial_id, 'workdir': workdir_of(folder, trial_id)}
        study.enqueue_trial(params, user_attrs=attrs)
    elif retry_failed and trial.state == TrialState.FAIL:
      requeue_callback()(study, trial)


def _with_seed(
  plan: Plan, first: FrozenTrial | None, seed_index: int
) -> dict[str, Any] | None:
  """Returns the parameters that the sampler chose, with another seed.

  None: the sampler has not chosen yet.
  """
  if first is None or not first.params.keys() - {'seed'}:
    return None
  return {**first.params, 'seed': plan.space['seed'][seed_index]}


def count(study: optuna.Study, states: Iterable[TrialState]) -> int:
  """Counts the trials of the sweep that are in one of these states."""
  states = tuple(states)
  return sum(trial.state in states for trial in trials_by_id(study).values())


def requeue_lost(study: optuna.Study, only_driver: bool) -> None:
  """Enqueues the trials that a killed driver was running.

  Args:
    study: The sweep's.
    only_driver: Whether no other driver can be running a trial. Then every
      trial in state `running` is lost.
  """
  optuna.storages.fail_stale_trials(study)
  running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
  for trial in running:
    # Optuna does not find a trial that was lost before its first heartbeat.
    age = datetime.datetime.now() - trial.datetime_start
    begun = trial.user_attrs.get('begun') == trial.number
    if only_driver or (not begun and age.total_seconds() > GRACE_SECONDS):
      with contextlib.suppress(ValueError):  # another driver was faster
        study.tell(trial.number, state=TrialState.FAIL)
        requeue_callback()(study, trial)
