"""The Optuna study of a sweep: which trials exist, and their states.

The study is a journal, a file that only grows. One driver at a time uses it,
from one thread: a trial that is `running` when a driver starts was left by the
driver before, and is continued first.

Each trial of the plan has a trial id, 0, 1, ..., and a workdir named after that
id. Both stay the same however often the trial is enqueued; Optuna's own trial
number does not.
"""

import math
from collections.abc import Container, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from gan_jax.errors import UserError
from gan_jax.files import local
from gan_jax.sweep.plan import SAMPLERS, Plan, make_pruner, planned_trials
from gan_jax.sweep.population import Member, next_generation

JOURNAL = 'sweep.journal'
# The user attribute that holds the trial id.
TRIAL_ID = 'trial_id'
DIRECTIONS = {'min': 'minimize', 'max': 'maximize'}
# Trials in these states are never run again.
FINISHED = TrialState.COMPLETE, TrialState.PRUNED


def open_study(plan: Plan, folder: str) -> optuna.Study:
  """Opens the study of a sweep, and creates it if it does not exist.

  The journal of a sweep in a bucket is in the local copy of its folder: on a
  machine without it, all runs are begun again, and complete ones end at once.
  """
  file = local(folder) / JOURNAL
  file.parent.mkdir(parents=True, exist_ok=True)
  return optuna.create_study(
    study_name='sweep',
    storage=optuna.storages.JournalStorage(JournalFileBackend(str(file))),
    sampler=SAMPLERS[plan.sampler](),
    pruner=make_pruner(plan),
    direction=DIRECTIONS[plan.goal],
    load_if_exists=True,
  )


def left_running(study: optuna.Study) -> list[optuna.Trial]:
  """Returns the trials that an earlier driver began but did not end."""
  trials = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
  return [optuna.Trial(study, trial._trial_id) for trial in trials]


def workdir_of(folder: str | Path, trial_id: int) -> str:
  """Returns the workdir of a trial: a path, or a URL if `folder` is one."""
  return f'{str(folder).rstrip("/")}/trials/{trial_id:04}'


def trials_by_id(study: optuna.Study) -> dict[int, FrozenTrial]:
  """Returns the newest Optuna trial of each trial id, in order."""
  found = {
    trial.user_attrs[TRIAL_ID]: trial
    for trial in study.get_trials(deepcopy=False)
  }
  return dict(sorted(found.items()))


def count(study: optuna.Study, states: Container[TrialState]) -> int:
  """Counts the trials of the sweep that are in one of these states."""
  return sum(trial.state in states for trial in trials_by_id(study).values())


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
  if plan.population is not None:
    _enqueue_generation(study, plan, existing)
    existing = trials_by_id(study)
  newest = max(existing, default=0)
  first_id = 0  # of the setting: the trial with its first seed
  for trial_id, params in enumerate(planned):
    first_id = trial_id if params is not None else first_id
    trial = existing.get(trial_id)
    if trial is None:
      if params is None and plan.population is None:
        seed_index = trial_id - first_id
        params = _with_seed(plan, existing.get(first_id), seed_index)
      if params is not None:
        study.enqueue_trial(params, user_attrs={TRIAL_ID: trial_id})
    elif (
      retry_failed
      and trial.state == TrialState.FAIL
      # A later generation was chosen without it.
      and generation(plan, trial_id) == generation(plan, newest)
    ):
      again = trial.params or params or {}
      study.enqueue_trial(again, user_attrs=trial.user_attrs)


def generation(plan: Plan, trial_id: int) -> int:
  """Returns the generation of a trial; 0 where there is no population."""
  return trial_id // plan.population['size'] if plan.population else 0


def _enqueue_generation(
  study: optuna.Study, plan: Plan, existing: Mapping[int, FrozenTrial]
) -> None:
  """Enqueues the next generation, if the newest one has ended."""
  size, first = plan.population['size'], len(existing)
  parents = [existing[i] for i in range(max(first - size, 0), first)]
  ended = all(trial.state.is_finished() for trial in parents)
  if not ended or first in (0, len(planned_trials(plan))):
    return
  members = [
    Member(first - size + i, trial.params, _score(trial))
    for i, trial in enumerate(parents)
  ]
  if all(member.score is None for member in members):
    return  # nothing can be copied
  number = generation(plan, first)
  choose = partial(next_generation, plan.seed, number)
  children = choose(members, plan.space, plan.goal)
  for trial_id, child in enumerate(children, first):
    attrs = {TRIAL_ID: trial_id, 'parent': child.parent}
    study.enqueue_trial(child.params, user_attrs=attrs)


def _score(trial: FrozenTrial) -> float | None:
  has_score = trial.state == TrialState.COMPLETE and math.isfinite(trial.value)
  return trial.value if has_score else None


def inherited(
  plan: Plan, folder: str | Path, trial: FrozenTrial | optuna.Trial
) -> dict[str, Any]:
  """Returns the overrides of a trial that follow from its generation."""
  parent = trial.user_attrs.get('parent')
  workdir = None if parent is None else workdir_of(folder, parent)
  return plan.inherited(trial.user_attrs[TRIAL_ID], workdir)


def _with_seed(
  plan: Plan, first: FrozenTrial | None, seed_index: int
) -> Mapping[str, Any] | None:
  """Returns the parameters that the sampler chose, with another seed.

  None: the sampler has not chosen yet.
  """
  if first is None or not first.params.keys() - {'seed'}:
    return None
  return {**first.params, 'seed': plan.space['seed'][seed_index]}
