"""Population-based training: a sweep whose settings change during training.

Jaderberg et al. 2017, "Population based training of neural networks". `size`
members train for `interval_images`. Then each of the worst quarter continues
from the checkpoint of one of the best quarter instead of its own (exploit), and
its hyperparameters are those of the other times 0.8 or 1.2 (explore).

A member of a generation is a trial: a run of its own, which continues a run of
the generation before by `config.init.state`. So no run ever changes its config,
and the table has the whole lineage. Unlike in the paper, all members of a
generation end before the next begins: the choices then depend on the scores and
the seed only, not on which machine is faster.
"""

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gan_jax.errors import UserError
from gan_jax.registry import check_keys
from gan_jax.sweep import space as spaces
from gan_jax.training.schedule import Schedule

KEYS = 'interval_images', 'size'
# The share of the population that is replaced, and that is copied.
QUANTILE = 0.25
FACTORS = 0.8, 1.2


class Member(NamedTuple):
  """A member of a generation that has ended.

  Attributes:
    trial_id: Its trial.
    params: Its hyperparameters.
    score: Its last score; None: it has diverged or failed.
  """

  trial_id: int
  params: Mapping[str, float]
  score: float | None


class Child(NamedTuple):
  """A member of the next generation: its hyperparameters, and its parent."""

  params: Mapping[str, float]
  parent: int


def check(
  where: str,
  block: Mapping[str, Any],
  schedule: Schedule,
  total_images: int,
) -> None:
  """Refuses a description or a schedule that does not fit a population."""
  if not isinstance(block['population'], Mapping):
    raise UserError(
      f"{where}: 'population' must be a dictionary of {' and '.join(KEYS)}"
    )
  check_keys(f"'population' of {where}", block['population'], KEYS)
  for key in KEYS:
    value = block['population'].get(key)
    if type(value) is not int or value < 2:
      raise UserError(
        f"{where}: 'population' needs {key!r}, 2 or more, not {value!r}"
      )
  interval = block['population']['interval_images']
  _check_lengths(where, interval, schedule, total_images)
  for key, choice in block['space'].items():
    ends = [choice['low'], choice['high']] if spaces.is_range(choice) else []
    if float not in map(type, ends):
      raise UserError(
        f'{where}: a population varies ranges of floats, and {key!r} is none'
      )
  for key in ('pruner', 'sampler', 'trials'):
    if block.get(key) is not None:
      raise UserError(f'{where}: a population has no {key!r}: remove it')


def _check_lengths(
  where: str, interval: int, schedule: Schedule, total_images: int
) -> None:
  """Refuses generations that are not alike, or that would not train."""
  if schedule.follows_its_end:
    raise UserError(
      f'{where}: the schedule depends on the length of the run, which the '
      'members of a population do not know: give its last segment a length'
    )
  if total_images % interval:
    raise UserError(
      f'{where}: total_images={total_images} must be a multiple of the '
      "population's interval_images"
    )
  steps = schedule.steps_per_dispatch
  dispatch = steps * max(p.segment.images_per_step for p in schedule.segments)
  if interval < dispatch:
    raise UserError(
      f"{where}: the population's interval_images={interval} must be "
      f'{dispatch} or more, the images of a dispatch '
      f'(steps_per_dispatch={steps})'
    )


def next_generation(
  seed: int,
  generation: int,
  members: Sequence[Member],
  space: spaces.Space,
  goal: str,
) -> list[Child]:
  """Chooses the next generation; its choices depend on the arguments only.

  Args:
    seed: The seed of its random choices.
    generation: The number of the next generation.
    members: The generation before, in the order of its trials.
    space: The ranges of the hyperparameters, which are never left.
    goal: 'min' or 'max': which score is best.
  """
  sign = 1 if goal == 'min' else -1
  lost = lambda member: member.score is None
  order = sorted(
    members, key=lambda m: (lost(m), 0 if lost(m) else sign * m.score)
  )
  count = math.ceil(QUANTILE * len(members))
  best = [member for member in order[:count] if not lost(member)]
  worst = {m.trial_id for m in order if lost(m)}
  worst |= {m.trial_id for m in order[-count:]} - {m.trial_id for m in best}
  rng = random.Random(f'{seed} {generation}')
  children = []
  for member in members:
    # All members draw, so that a draw does not depend on the other members.
    index = rng.random()
    factors = {key: rng.choice(FACTORS) for key in space}
    if member.trial_id in worst and best:
      parent = best[int(index * len(best))]
      params = {
        key: _within(space[key], parent.params[key] * factor)
        for key, factor in factors.items()
      }
      children.append(Child(params, parent.trial_id))
    else:
      children.append(Child(dict(member.params), member.trial_id))
  return children


def _within(choice: Mapping[str, float], value: float) -> float:
  return min(max(value, choice['low']), choice['high'])
