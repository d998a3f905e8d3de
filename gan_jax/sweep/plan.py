"""Reads and checks the description of a sweep.

`sweep` of an experiment's file returns {name: description}. A description is
plain data:

  space        the varied keys (space.py); a space of lists is a grid, which is
               run completely; a space with a range is searched
  trials       of a search: the number of settings
  score, goal  the logged metric that ranks the trials, and 'min' or 'max';
               default: the first of `config.evaluation.metrics`, or the first
               that is measured
  fixed        {key: value} that all trials override, such as the budget
  population   {'size': N, 'interval_images': M}: trains a population, whose
               settings change during training (population.py)
  sampler      of a search: 'tpe' (the default) or 'random'
  pruner       {'name': 'median' or 'halving', ...}: ends bad trials early
  keep_pruned  False: the checkpoints of pruned trials are deleted
  cost         the measured cost of the sweep, in words
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import optuna
from ml_collections import ConfigDict

from gan_jax.errors import UserError
from gan_jax.experiment_file import read_sweeps
from gan_jax.metrics.measure import METRICS, get_metric
from gan_jax.registry import build, check_keys, choose, is_code
from gan_jax.sweep import check, population
from gan_jax.sweep import space as spaces
from gan_jax.training.evaluations import choose_for
from gan_jax.training.overrides import override
from gan_jax.training.schedule import make_schedule

KEYS = (
  'cost', 'fixed', 'goal', 'keep_pruned', 'population', 'pruner', 'sampler',
  'score', 'space', 'trials',
)  # fmt: skip
# The number of settings of a search that are drawn at random.
STARTUP_TRIALS = 10


def _median(
  startup_trials: int = 5, warmup_images: int = 0
) -> optuna.pruners.BasePruner:
  """Prunes a trial that is worse than the median of the others so far."""
  return optuna.pruners.MedianPruner(startup_trials, warmup_images)


def _halving(min_images: int, factor: int = 3) -> optuna.pruners.BasePruner:
  """Keeps one trial of `factor` at min_images, min_images * factor, ..."""
  return optuna.pruners.SuccessiveHalvingPruner(min_images, factor)


PRUNERS: dict[str, Callable[..., optuna.pruners.BasePruner]] = {
  'halving': _halving,
  'median': _median,
}
SAMPLERS: dict[str, Callable[[], optuna.samplers.BaseSampler]] = {
  'random': optuna.samplers.RandomSampler,
  'tpe': lambda: optuna.samplers.TPESampler(n_startup_trials=STARTUP_TRIALS),
}


class Plan(NamedTuple):
  """A checked sweep, ready to run.

  Attributes:
    experiment: FILE.py or FILE.py:ARGUMENT.
    name: The sweep's name.
    space: The varied keys (space.py).
    base: The overrides of all trials: 'fixed', and those that the user typed.
    score: The metric that ranks trials, as `metrics.jsonl` names it.
    goal: 'min' or 'max': which score is best.
    settings: The number of settings of a search; None: the sweep is a grid, or
      a population.
    population: As in the description; None: the sweep is a grid or a search.
    sampler, pruner, keep_pruned, cost: As in the description.
    every_images: The images between two measurements of the score; None:
      unknown.
    total_images: The images of a trial, at most; None: the trials differ.
  """

  experiment: str
  name: str
  space: spaces.Space
  base: Mapping[str, Any]
  score: str
  goal: str
  settings: int | None
  population: Mapping[str, int] | None
  sampler: str
  pruner: Mapping[str, Any] | None
  keep_pruned: bool
  cost: str
  every_images: int | None
  total_images: int | None

  @property
  def seed(self) -> int:
    """The seed of random settings: that of all trials, if they share one."""
    return self.base.get('seed', 0)

  def flags(self, overrides: Mapping[str, Any]) -> list[str]:
    """Returns the flags of `launch.py` for a trial, except its workdir."""
    settings = {**self.base, **overrides}
    flags = [f'--config.{key}={_flag_value(x)}' for key, x in settings.items()]
    return [f'--config={self.experiment}', *flags]

  def inherited(self, trial_id: int, parent: str | None) -> dict[str, Any]:
    """Returns the overrides by which a member of a population trains.

    Args:
      trial_id: The member's.
      parent: The workdir of the run that it continues; None: there is none.
    """
    if self.population is None:
      return {}
    generation = trial_id // self.population['size']
    images = (generation + 1) * self.population['interval_images']
    start = {'init.source': parent, 'init.state': True} if parent else {}
    return {'total_images': images, **start}

  def identity(self) -> dict[str, Any]:
    """Returns the fields that a resumed sweep must share, as plain JSON."""
    names = (
      'experiment', 'name', 'space', 'base', 'score', 'goal', 'sampler',
      'population',
    )  # fmt: skip
    fields = {key: to_json(getattr(self, key)) for key in names}
    return {**fields, 'searched': self.settings is not None}


def _flag_value(value: Any) -> str:
  return value if isinstance(value, str) else repr(value)


def to_json(tree: Any) -> Any:
  """Returns a value as JSON has it: tuples become lists."""
  if isinstance(tree, Mapping):
    return {str(key): to_json(value) for key, value in tree.items()}
  return [to_json(x) for x in tree] if isinstance(tree, list | tuple) else tree


def make(
  experiment: str,
  config: ConfigDict,
  overrides: Mapping[str, Any],
  name: str | None = None,
  trials: int | None = None,
  remote_trials: bool = False,
) -> Plan:
  """Reads a sweep of an experiment and checks all of it.

  Args:
    experiment: FILE.py or FILE.py:ARGUMENT.
    config: Its config, with the overrides.
    overrides: The overrides that the user typed, by key. They apply to all
      trials and take precedence over the description's 'fixed'.
    name: The sweep's name; None: the only sweep of the experiment.
    trials: The number of settings of a search; None: the description's.
    remote_trials: Whether trials run on other machines than this one.

  Raises:
    UserError: The sweep does not exist, or cannot run.
  """
  name, block = _read_description(experiment, name)
  where = f'sweep {name!r} of {experiment}'
  check_keys(where, block, KEYS)
  space, fixed = block.get('space', {}), block.get('fixed', {})
  check.check_space(where, space, fixed, config, overrides)
  base, config = {**fixed, **overrides}, copy.deepcopy(config)
  for key, value in base.items():
    override(where, config, key, value)
  score, goal = _score(where, block, config)
  is_evaluated = _is_evaluated(score)
  every_images = config.evaluation.every_images if is_evaluated else None
  lengths_differ = 'total_images' in spaces.keys(space)
  plan = Plan(
    experiment=experiment,
    name=name,
    space=space,
    base=base,
    score=score,
    goal=goal,
    settings=_settings(where, block, space, trials),
    population=block.get('population'),
    sampler=block.get('sampler', 'tpe'),
    pruner=block.get('pruner'),
    keep_pruned=block.get('keep_pruned', True),
    cost=block.get('cost', ''),
    every_images=every_images,
    total_images=None if lengths_differ else config.total_images,
  )
  if plan.population is not None:
    given = {'trials': trials} if trials is not None else {}
    schedule = make_schedule(config)
    population.check(where, {**block, **given}, schedule, config.total_images)
  choose(f'sampler of {where}', plan.sampler, SAMPLERS)
  make_pruner(plan)
  check.check_trials(where, space, config, base, score, remote_trials)
  return plan


def _read_description(
  experiment: str, name: str | None
) -> tuple[str, Mapping[str, Any]]:
  """Returns the name and the description of a sweep of an experiment."""
  known = read_sweeps(experiment)
  if name is None and len(known) > 1:
    raise UserError(
      f'{experiment} has several sweeps: choose one by --sweep='
      f'{" or ".join(known)}'
    )
  name = next(iter(known)) if name is None else name
  return name, choose(f'sweep of {experiment}', name, known)


def _is_evaluated(score: str) -> bool:
  return score.startswith('eval/')


def _score(
  where: str, block: Mapping[str, Any], config: ConfigDict
) -> tuple[str, str]:
  """Returns the score's name in `metrics.jsonl`, and the goal."""
  known = lambda name: name in METRICS or is_code(name)
  own = [get_metric(m) for m in config.evaluation.metrics if known(m)]
  rows = {s: row for row in (*METRICS.values(), *own) for s in row.scores}
  name = block.get('score')
  if name is None:
    ranking = [row.main for row in own if row.ranks]
    if not ranking:
      evaluation = config.evaluation
      choice = choose_for(config, evaluation.metrics, evaluation.features)
      ranking = [score for score in choice.scores if rows[score].ranks]
    if not ranking:
      raise UserError(
        f"{where}: set 'score' to a metric that ranks the trials: "
        f'config.evaluation of {config.data.source} measures none'
      )
    name = ranking[0]
  plain = name.removeprefix('eval/')
  is_score = plain in rows or plain.startswith('swd_')
  score = f'eval/{plain}' if is_score else name
  if _is_evaluated(score) and config.evaluation.every_images is None:
    raise UserError(
      f'{where}: {score} is never measured: add evaluation.every_images to '
      "'fixed'"
    )
  best = rows.get(plain, METRICS['swd']).best(plain) if is_score else None
  guess = {'highest': 'max', 'lowest': 'min', None: None}[best]
  goal = block.get('goal', guess)
  if goal not in ('min', 'max'):
    raise UserError(
      f"{where}: 'goal' of {score} must be 'min' or 'max', not {goal!r}"
    )
  return score, goal


def _settings(
  where: str,
  block: Mapping[str, Any],
  space: spaces.Space,
  trials: int | None,
) -> int | None:
  """Returns the number of settings of a search; None: the sweep is a grid."""
  if 'population' in block:
    return None
  searched = spaces.has_range(space)
  if not searched:
    for key, value in (('trials', trials), *block.items()):
      if key in ('trials', 'sampler') and value is not None:
        raise UserError(
          f'{where} is a grid of {len(spaces.grid(space))} trials: remove '
          f'{key}, which only a search (a space with a range) uses'
        )
    return None
  settings = block.get('trials') if trials is None else trials
  if not isinstance(settings, int) or settings < 1:
    raise UserError(
      f'{where} is a search: --trials={settings} must be 1 or more'
    )
  if 'seed' in space and not isinstance(space['seed'], list):
    raise UserError(f"{where}: 'seed' must be a list of seeds")
  return settings


def make_pruner(plan: Plan) -> optuna.pruners.BasePruner:
  """Makes the pruner, which ends bad trials early."""
  if plan.pruner is None:
    return optuna.pruners.NopPruner()
  if 'name' not in plan.pruner:
    raise UserError(f"'pruner' needs a 'name': {' or '.join(PRUNERS)}")
  try:
    return build(f'pruner of {plan.name!r}', PRUNERS, plan.pruner)
  except TypeError as error:
    raise UserError(f'pruner of {plan.name!r}: {error}') from error


def planned_trials(plan: Plan) -> list[dict[str, Any] | None]:
  """Lists the planned trials, with the parameters known before any trial runs.

  The first settings of a search are drawn at random, by the seed alone. If
  the space has 'seed', each setting runs with every seed, one after the other.

  Returns:
    Optuna's parameters of each trial; the sampler chooses missing ones. None:
    the parameters of the trial with the first seed of the same setting, or
    those that a generation of a population inherits.
  """
  if plan.population is not None:
    first = _startup_settings(plan, plan.population['size'])
    interval = plan.population['interval_images']
    later = len(first) * (plan.total_images // interval - 1)
    return [*first, *([None] * later)]
  if plan.settings is None:
    return list(spaces.grid(plan.space))
  seeds = [spaces.label(seed) for seed in plan.space.get('seed', [None])]
  is_random = plan.sampler == 'random'
  num_drawn = plan.settings if is_random else STARTUP_TRIALS
  drawn = _startup_settings(plan, min(plan.settings, num_drawn))
  listed: list[dict[str, Any] | None] = []
  for index in range(plan.settings):
    known = drawn[index] if index < len(drawn) else None
    for seed in seeds:
      with_seed = {} if seed is None else {'seed': seed}
      is_first = seed == seeds[0]
      params = with_seed | (known or {})
      listed.append(params if known or is_first else None)
  return listed


def _startup_settings(plan: Plan, number: int) -> list[dict[str, Any]]:
  space = {key: x for key, x in plan.space.items() if key != 'seed'}
  sampler = optuna.samplers.RandomSampler(seed=plan.seed)
  study = optuna.create_study(sampler=sampler)
  drawn = []
  for _ in range(number):
    trial = study.ask()
    spaces.suggest(trial, space)
    drawn.append(dict(trial.params))
  return drawn
