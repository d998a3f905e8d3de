"""The engine's book of a sweep: which trials there are, and how they stand.

It is an Optuna study in a database. A driver that is killed can say nothing
any more: while it has a trial, its heartbeat is written beside it, and a trial
whose heart has stopped is lost, and entered anew. Of Optuna's storages those in
databases alone have heartbeats, and SQLite is the one that is a file: so it is
the default. (Journal files are simpler, and would keep a lost trial `running`
for ever.) `study.optimize` alone starts the hearts. A driver that holds the
sweep's folder need not wait for one to stop: what was begun before, is lost.

Each trial of a sweep has a number here that is its own, its slot, and so a
workdir, which stays the same however often it is entered anew.
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
from gan_jax.sweep.plan import SAMPLERS, Plan, entries, pruner

# A trial whose heart has not beaten for so long is lost.
HEARTBEAT_SECONDS, GRACE_SECONDS = 10, 120
# A driver that is alone never loses a trial of its own: its clock may leap all
# the same, as when a machine was asleep.
NEVER_SECONDS = 10**9
# SQLite has one writer at a time: the others wait for it so long.
BUSY_SECONDS = 60

DIRECTIONS = {'min': 'minimize', 'max': 'maximize'}
# What is over, and never run again.
SETTLED = TrialState.COMPLETE, TrialState.PRUNED


def hush() -> None:
  """The engine speaks through us; its heartbeats are called experimental."""
  optuna.logging.set_verbosity(optuna.logging.ERROR)
  warnings.filterwarnings(
    'ignore', category=optuna.exceptions.ExperimentalWarning
  )


def retry() -> optuna.storages.RetryHeartbeatStaleTrialCallback:
  """(study, trial) -> None: enters a trial anew, as it was."""
  return optuna.storages.RetryHeartbeatStaleTrialCallback()


def open_study(plan: Plan, url: str, name: str, alone: bool) -> optuna.Study:
  """The study of that name, made if need be.

  Args:
    plan: Of the sweep.
    url: Of the database.
    name: Of the study in it.
    alone: Whether there can be no other driver.

  Raises:
    UserError: The database cannot be reached, or `url` names none.
  """
  sqlite = url.startswith('sqlite')
  kwargs = {'connect_args': {'timeout': BUSY_SECONDS}} if sqlite else {}
  try:
    storage = optuna.storages.RDBStorage(
      url,
      engine_kwargs=kwargs,
      heartbeat_interval=HEARTBEAT_SECONDS,
      grace_period=NEVER_SECONDS if alone else GRACE_SECONDS,
      heartbeat_stale_trial_callback=retry(),
    )
    if sqlite:
      sqlalchemy.event.listen(storage.engine, 'begin', _lock)
    return optuna.create_study(
      study_name=name,
      storage=storage,
      sampler=SAMPLERS[plan.sampler](),
      pruner=pruner(plan),
      direction=DIRECTIONS[plan.goal],
      load_if_exists=True,
    )
  except (ImportError, sqlalchemy.exc.SQLAlchemyError) as error:
    line = str(error).splitlines()[0]
    raise UserError(
      f'--storage={url} cannot be opened: it is to be the URL of a database, '
      f'as sqlite:///FILE ({line})'
    ) from error


def _lock(connection: sqlalchemy.Connection) -> None:
  """Takes the whole of SQLite for a transaction, from its beginning.

  The engine locks a row before it gives a trial to somebody, and SQLite has no
  such locks: of two who asked at once both would have it (optuna#4002).
  """
  connection.exec_driver_sql('BEGIN IMMEDIATE')


def workdir_of(folder: str | Path, slot: int) -> str:
  """Where a trial is: a path, or a URL as the folder's is."""
  return f'{str(folder).rstrip("/")}/trials/{slot:04}'


def slot_of(trial: FrozenTrial | optuna.Trial) -> int | None:
  """Which trial of the sweep it is; None: one too many."""
  return trial.user_attrs.get('slot')


def by_slot(study: optuna.Study) -> dict[int, FrozenTrial]:
  """How each trial of the sweep stands, in their order."""
  found: dict[int, FrozenTrial] = {}
  for trial in study.get_trials(deepcopy=False):
    slot = slot_of(trial)
    extra = slot is None or 'surplus' in trial.user_attrs
    if not extra and (slot not in found or found[slot].state not in SETTLED):
      found[slot] = trial
  return dict(sorted(found.items()))


def is_surplus(study: optuna.Study, trial: optuna.Trial) -> bool:
  """Whether a trial that begins is none of the sweep's, or run already.

  Two drivers that enter the same trial, or ask for the last one at once, make
  one too many.
  """
  slot = slot_of(trial)
  rivals = (
    other
    for other in study.get_trials(deepcopy=False)
    if slot_of(other) == slot and other.number != trial.number
  )
  return slot is None or any(
    other.state in SETTLED
    or (other.state == TrialState.RUNNING and other.number < trial.number)
    for other in rivals
  )


def enter(
  study: optuna.Study, plan: Plan, folder: str | Path, again: bool
) -> None:
  """Enters the trials that are not there yet.

  Args:
    study: Of the sweep.
    plan: Tells which trials there are to be.
    folder: The sweep's.
    again: Those that have failed too, anew.

  Raises:
    UserError: There are more already.
  """
  there, listed = by_slot(study), entries(plan)
  if there and max(there) >= len(listed):
    raise UserError(
      f'{folder} has {max(there) + 1} trials, and {len(listed)} were asked for'
    )
  first = 0
  for slot, params in enumerate(listed):
    first = slot if params is not None else first
    before = there.get(slot)
    if before is None:
      if params is None:
        params = _another_seed(plan, there.get(first), slot - first)
      if params is not None:
        attrs = {'slot': slot, 'workdir': workdir_of(folder, slot)}
        study.enqueue_trial(params, user_attrs=attrs)
    elif again and before.state == TrialState.FAIL:
      retry()(study, before)


def _another_seed(
  plan: Plan, first: FrozenTrial | None, index: int
) -> dict[str, Any] | None:
  """The setting of a trial whose engine has chosen, with the next seed."""
  if first is None or not first.params.keys() - {'seed'}:
    return None
  return {**first.params, 'seed': plan.space['seed'][index]}


def count(study: optuna.Study, states: Iterable[TrialState]) -> int:
  """How many trials of the sweep are in one of these states."""
  states = tuple(states)
  return sum(trial.state in states for trial in by_slot(study).values())


def find_lost(study: optuna.Study, alone: bool) -> None:
  """Enters what a driver that was killed had in hand anew.

  Args:
    study: Of the sweep.
    alone: Nobody else can have a trial in hand: what is said to run, is lost.
  """
  optuna.storages.fail_stale_trials(study)
  running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
  for trial in running:
    # A trial that was lost before its heart beat once is none that the engine
    # would find.
    age = datetime.datetime.now() - trial.datetime_start
    begun = trial.user_attrs.get('begun') == trial.number
    if alone or (not begun and age.total_seconds() > GRACE_SECONDS):
      with contextlib.suppress(ValueError):  # another driver was faster
        study.tell(trial.number, state=TrialState.FAIL)
        retry()(study, trial)
