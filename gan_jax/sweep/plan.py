"""What a sweep is to do: the description beside the experiment, checked.

`def sweep()` of an experiment's file returns {name: description}, plain data:

  space        what varies (space.py): lists alone are a grid, all of it is run;
               with a range among them it is searched
  trials       of a search: how many settings
  score, goal  what is logged and ranks them, 'min' or 'max'; without them the
               first of `config.evaluation.metrics`
  fixed        {key: value} of all trials: the budget that this is meant for
  sampler      of a search: 'tpe' (the default) or 'random'
  pruner       {'name': 'median' or 'halving', ...}: stops the hopeless early
  keep_pruned  False: the checkpoints of those are dropped
  cost         in words, what it takes, where somebody has measured it
"""

import copy
import runpy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import optuna
from ml_collections import ConfigDict

from gan_jax.errors import UserError, where_in
from gan_jax.metrics.measure import HIGHER_IS_BETTER, METRICS, UNRANKED
from gan_jax.registry import build, check_keys, choose
from gan_jax.sweep import check
from gan_jax.sweep import space as spaces
from gan_jax.training.evaluations import choose_for

KEYS = (
  'cost', 'fixed', 'goal', 'keep_pruned', 'pruner', 'sampler', 'score', 'space',
  'trials',
)  # fmt: skip
# A search draws its first settings at random, by this seed.
DRAWN, DRAWING_SEED = 10, 0


def _median(
  startup_trials: int = 5, warmup_images: int = 0
) -> optuna.pruners.BasePruner:
  """Stops what is worse than the median of the others at so many images."""
  return optuna.pruners.MedianPruner(startup_trials, warmup_images)


def _halving(min_images: int, factor: int = 3) -> optuna.pruners.BasePruner:
  """Lets one of `factor` on at min_images, min_images * factor, ..."""
  return optuna.pruners.SuccessiveHalvingPruner(min_images, factor)


PRUNERS: dict[str, Callable[..., optuna.pruners.BasePruner]] = {
  'halving': _halving,
  'median': _median,
}
SAMPLERS: dict[str, Callable[[], optuna.samplers.BaseSampler]] = {
  'random': optuna.samplers.RandomSampler,
  'tpe': lambda: optuna.samplers.TPESampler(n_startup_trials=DRAWN),
}


class Plan(NamedTuple):
  """A sweep that can be run.

  Attributes:
    experiment: FILE.py or FILE.py:ARGUMENT.
    name: Of the sweep.
    space: As of space.py.
    base: What all trials override: the budget, and what was typed.
    score: What ranks trials, as it is called in `metrics.jsonl`.
    goal: 'min' or 'max' of it.
    settings: How many there are, of a search; None: it is a grid.
    sampler, pruner, keep_pruned, cost: As described.
    every_images: How often the score is measured, where that is known.
    total_images: Of a trial, at most; None: the trials differ.
  """

  experiment: str
  name: str
  space: spaces.Space
  base: Mapping[str, Any]
  score: str
  goal: str
  settings: int | None
  sampler: str
  pruner: Mapping[str, Any] | None
  keep_pruned: bool
  cost: str
  every_images: int | None
  total_images: int | None

  def flags(self, overrides: Mapping[str, Any]) -> list[str]:
    """What `launch.py` is given to run a trial, but for its workdir."""
    given = {**self.base, **overrides}
    listed = [f'--config.{key}={_typed(x)}' for key, x in given.items()]
    return [f'--config={self.experiment}', *listed]

  def identity(self) -> dict[str, Any]:
    """What must be the same when the sweep goes on, as JSON has it."""
    kept = ('experiment', 'name', 'space', 'base', 'score', 'goal', 'sampler')
    plain = {key: _plain(getattr(self, key)) for key in kept}
    return {**plain, 'searched': self.settings is not None}


def _typed(value: Any) -> str:
  return value if isinstance(value, str) else repr(value)


def _plain(tree: Any) -> Any:
  if isinstance(tree, Mapping):
    return {str(key): _plain(value) for key, value in tree.items()}
  return [_plain(x) for x in tree] if isinstance(tree, list | tuple) else tree


def make(
  experiment: str,
  config: ConfigDict,
  overrides: Mapping[str, Any],
  name: str | None = None,
  trials: int | None = None,
  elsewhere: bool = False,
) -> Plan:
  """Reads a sweep of an experiment, and checks all of it.

  Args:
    experiment: FILE.py or FILE.py:ARGUMENT.
    config: Its config, with what was typed.
    overrides: What was typed, by key: it is of all trials, and comes before
      what the sweep fixes.
    name: Of the sweep; None: the only one.
    trials: Other than the description's.
    elsewhere: Whether trials run on other machines than this one.

  Raises:
    UserError: There is no such sweep, or what it says cannot be run.
  """
  path = experiment.partition(':')[0]
  name, block = _described(path, name)
  where = f'sweep {name!r} of {path}'
  check_keys(where, block, KEYS)
  space, fixed = block.get('space', {}), block.get('fixed', {})
  check.check_space(where, space, fixed, config, overrides)
  base, config = {**fixed, **overrides}, copy.deepcopy(config)
  for key, value in base.items():
    check.override(where, config, key, value)
  score, goal = _score(where, block, config)
  measured = config.evaluation.every_images if _evaluated(score) else None
  cut = 'total_images' in spaces.keys(space)
  plan = Plan(
    experiment=experiment,
    name=name,
    space=space,
    base=base,
    score=score,
    goal=goal,
    settings=_settings(where, block, space, trials),
    sampler=block.get('sampler', 'tpe'),
    pruner=block.get('pruner'),
    keep_pruned=block.get('keep_pruned', True),
    cost=block.get('cost', ''),
    every_images=measured,
    total_images=None if cut else config.total_images,
  )
  choose(f'sampler of {where}', plan.sampler, SAMPLERS)
  pruner(plan)
  check.check_trials(where, space, config, base, score, elsewhere)
  return plan


def _described(path: str, name: str | None) -> tuple[str, Mapping[str, Any]]:
  """What the experiment's file says of the sweep of that name."""
  try:
    described = runpy.run_path(path)
    known = described['sweep']() if 'sweep' in described else {}
    known = {title: dict(block) for title, block in known.items()}
  except Exception as error:
    raise UserError(
      f'{where_in(path, error)} gives no sweeps: {type(error).__name__}: '
      f'{error}'
    ) from error
  if not known:
    raise UserError(
      f'{path} declares no sweep: def sweep() is to return '
      "{'NAME': {'space': {'KEY': [VALUE, ...]}}}"
    )
  if name is None and len(known) > 1:
    raise UserError(f'{path} has several: --sweep={" or ".join(known)}')
  name = next(iter(known)) if name is None else name
  return name, choose(f'sweep of {path}', name, known)


def _evaluated(score: str) -> bool:
  return score.startswith('eval/')


def _score(
  where: str, block: Mapping[str, Any], config: ConfigDict
) -> tuple[str, str]:
  """The name in `metrics.jsonl`, and which way is better."""
  known = {score for row in METRICS.values() for score in row.scores}
  name = block.get('score')
  if name is None:
    metrics = [METRICS[m] for m in config.evaluation.metrics if m in METRICS]
    mains = [row.main for row in metrics if row.main not in UNRANKED]
    name = mains[0] if mains else None
  if name is None:
    said = config.evaluation
    choice = choose_for(config.data.source, said.metrics, said.features)
    ranking = [score for score in choice.scores if score not in UNRANKED]
    raise UserError(
      f"{where}: 'score' is to name what ranks the trials; of "
      f'{config.data.source} there are {", ".join(ranking) or "none"}'
    )
  plain = name.removeprefix('eval/')
  is_score = plain in known or plain.startswith('swd_')
  score = f'eval/{plain}' if is_score else name
  if _evaluated(score) and config.evaluation.every_images is None:
    raise UserError(
      f'{where}: {score} is never measured: fix evaluation.every_images'
    )
  ranks = is_score and plain not in UNRANKED
  guess = None if not ranks else 'max' if plain in HIGHER_IS_BETTER else 'min'
  goal = block.get('goal', guess)
  if goal not in ('min', 'max'):
    raise UserError(
      f"{where}: 'goal' is to be 'min' or 'max' of {score}, not {goal!r}"
    )
  return score, goal


def _settings(
  where: str,
  block: Mapping[str, Any],
  space: spaces.Space,
  trials: int | None,
) -> int | None:
  """How many settings a search tries; None: it is a grid."""
  searched = spaces.has_range(space)
  if not searched:
    for key, value in (('trials', trials), *block.items()):
      if key in ('trials', 'sampler') and value is not None:
        raise UserError(
          f'{where} is a grid of {len(spaces.grid(space))}: {key} is for a '
          'search, of which a range is a part'
        )
    return None
  wanted = block.get('trials') if trials is None else trials
  if not isinstance(wanted, int) or wanted < 1:
    raise UserError(
      f'{where} is a search: --trials={wanted} is to be 1 or more'
    )
  if 'seed' in space and not isinstance(space['seed'], list):
    raise UserError(f"{where}: 'seed' is to be a list: each setting is run so")
  return wanted


def pruner(plan: Plan) -> optuna.pruners.BasePruner:
  """What tells which trials are hopeless."""
  if plan.pruner is None:
    return optuna.pruners.NopPruner()
  if 'name' not in plan.pruner:
    raise UserError(f"'pruner' has a 'name': {', '.join(PRUNERS)}")
  try:
    return build(f'pruner of {plan.name!r}', PRUNERS, plan.pruner)
  except TypeError as error:
    raise UserError(f'pruner of {plan.name!r}: {error}') from error


def entries(plan: Plan) -> list[dict[str, Any] | None]:
  """What is known of each trial before any is run, in their order.

  Of a search the first settings are drawn at random, the same ones always; and
  with 'seed' in the space, each setting is run with every seed, one after the
  other.

  Returns:
    What `suggest` is to be answered; what is left out, the engine chooses.
    None: as in the trial with its setting's first seed.
  """
  if plan.settings is None:
    return list(spaces.grid(plan.space))
  seeds = [spaces.label(seed) for seed in plan.space.get('seed', [None])]
  drawn = _drawn(plan)
  listed: list[dict[str, Any] | None] = []
  for index in range(plan.settings):
    known = drawn[index] if index < len(drawn) else None
    for seed in seeds:
      own = {} if seed is None else {'seed': seed}
      first = seed == seeds[0]
      listed.append(own | (known or {}) if known or first else None)
  return listed


def _drawn(plan: Plan) -> list[dict[str, Any]]:
  rest = {key: x for key, x in plan.space.items() if key != 'seed'}
  several = plan.settings if plan.sampler == 'random' else DRAWN
  sampler = optuna.samplers.RandomSampler(seed=DRAWING_SEED)
  study = optuna.create_study(sampler=sampler)
  drawn = []
  for _ in range(min(plan.settings, several)):
    trial = study.ask()
    spaces.suggest(trial, rest)
    drawn.append(dict(trial.params))
  return drawn
