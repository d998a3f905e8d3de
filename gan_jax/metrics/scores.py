"""Scores of a run, each with how it was obtained, and runs side by side.

A score without its protocol says nothing: published ones of one GAN on one set
differ twofold because everybody measures differently. So each carries a stamp,
and scores whose protocols differ are not ranked.
"""

import contextlib
import hashlib
import json
import math
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from etils import epath

from gan_jax.config import differences, flatten
from gan_jax.config import read as read_config
from gan_jax.errors import UserError, suggest
from gan_jax.files import held, is_remote, write_whole
from gan_jax.metrics.measure import HIGHER_IS_BETTER, UNRANKED

if TYPE_CHECKING:
  import pandas

FILE = 'scores.jsonl'
# What was measured, and not how.
OF_WHAT = frozenset({'fakes.generator'})


class Score(NamedTuple):
  """A number, and how it was obtained.

  Attributes:
    name: fid, kid, precision, swd_16, ...
    value: The mean over evaluation seeds.
    std: The standard deviation over them; None: there was one.
    step, images: Of the generator; None: it was images that were measured.
    protocol: What the value depends on beside the generator.
    ranks: Whether the best checkpoint is chosen by this score.
  """

  name: str
  value: float
  std: float | None
  step: int | None
  images: int | None
  protocol: dict[str, Any]
  ranks: bool = False

  def __repr__(self) -> str:
    """10.564 +- 0.2."""
    std = '' if self.std is None else f' +- {self.std:.2g}'
    return f'{self.value:.5g}{std}'

  def __str__(self) -> str:
    """fid 10.564 +- 0.2."""
    return f'{self.name} {self!r}'


def read(workdir: str | Path) -> list[Score]:
  """All scores of a run, in the order in which they were obtained."""
  file = epath.Path(workdir).expanduser() / FILE
  if not file.exists():
    return []
  try:
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [Score(**line) for line in lines]
  except (ValueError, TypeError) as error:
    raise UserError(f'{file} is damaged: {error}') from error


def record(workdir: str | Path, scores: Iterable[Score]) -> None:
  """Adds scores; what was obtained in the same way before is replaced."""
  folder = epath.Path(workdir).expanduser()
  new = {_identity(score): score for score in scores}
  with contextlib.ExitStack() as stack:
    if not is_remote(folder):  # a run may be evaluated while it trains
      stack.enter_context(held(folder, lambda: None, '.scores.lock'))
    kept = [score for score in read(workdir) if _identity(score) not in new]
    lines = [json.dumps(score._asdict()) for score in (*kept, *new.values())]
    write_whole(folder / FILE, ''.join(f'{line}\n' for line in lines))


def best_steps(scores: Iterable[Score], steps: Container[int]) -> set[int]:
  """The steps of the best checkpoints, one for each way of measuring.

  Args:
    scores: Those that do not rank, or are not finite, choose nothing.
    steps: Of the checkpoints that exist.
  """
  best: dict[str, Score] = {}
  for score in scores:
    if score.ranks and score.step in steps and math.isfinite(score.value):
      other = best.setdefault(comparison_digest(score.protocol), score)
      if is_better(score, other):
        best[comparison_digest(score.protocol)] = score
  return {score.step for score in best.values()}


def is_better(one: Score, other: Score) -> bool:
  """Whether a score is better than another of the same name."""
  if one.name in HIGHER_IS_BETTER:
    return one.value > other.value
  return one.value < other.value


def protocol_digest(told: Any) -> str:
  """A stamp, or several, in short: a digest."""
  told = json.dumps(told, sort_keys=True)
  return hashlib.sha256(told.encode()).hexdigest()[:16]


def _identity(score: Score) -> tuple[str, int | None, str]:
  return score.name, score.step, protocol_digest(score.protocol)


def compare(
  *runs: str | Path | Mapping[str, Score], name: str = 'fid'
) -> 'pandas.DataFrame':
  """Runs side by side, by a score, the best first.

  Each by the newest one that was obtained in a way in which all have one.

  Args:
    *runs: Workdirs, runs, or what `gan_jax.evaluate` gave.
    name: Of the score.

  Raises:
    UserError: A run has no such score, or their protocols differ.
  """
  import pandas

  if len(runs) < 2:
    raise UserError('name two runs or more to compare')
  if name in UNRANKED:
    raise UserError(
      f'{name} ranks nobody: G is to be as the data is, or as unseen data'
    )
  runs = tuple(getattr(run, 'workdir', run) for run in runs)
  known = [_of(run, name) for run in runs]
  titles = [
    str(run) if isinstance(run, str | Path) else f'evaluation {index}'
    for index, run in enumerate(runs, 1)
  ]
  shared = set.intersection(
    *({comparison_digest(s.protocol) for s in some} for some in known)
  )
  ways = [comparison_digest(score.protocol) for score in reversed(known[0])]
  # The newest in which all were measured; if there is none, it is told why.
  common = next((one for one in ways if one in shared), None)
  found = [
    next(
      (s for s in reversed(some) if comparison_digest(s.protocol) == common),
      some[-1],
    )
    for some in known
  ]
  check_same_protocol(dict(zip(titles, found, strict=True)))
  table = pandas.DataFrame(
    {
      'run': titles,
      'step': [score.step for score in found],
      'images': [score.images for score in found],
      name: [score.value for score in found],
      'std': [score.std for score in found],
    }
  )
  return table.sort_values(
    name, ascending=name not in HIGHER_IS_BETTER, ignore_index=True
  )


def check_same_protocol(scores: Mapping[str, Score]) -> None:
  """Refuses scores that were not obtained in one way, saying in what."""
  (first, one), *others = scores.items()
  for title, other in others:
    protocols = flatten(one.protocol), flatten(other.protocol)
    differing = [
      f'{key} ({x} and {y})'
      for key, x, y in differences(*protocols, but=OF_WHAT)
    ]
    if differing:
      raise UserError(
        f'the {one.name} of {first} and of {title} cannot be ranked: they '
        f'differ in {"; ".join(differing)}'
      )


def _of(run: str | Path | Mapping[str, Score], name: str) -> list[Score]:
  """The scores of that name, the newest last; one at least."""
  if isinstance(run, Mapping):
    known, what = list(run.values()), 'the images have'
  else:
    known, what = read(run), f'{run} has'
    if not known:
      read_config(run)  # tells if there is no run at all
  found = [score for score in known if score.name == name]
  if not found:
    names = sorted({score.name for score in known})
    there = ', '.join(names) or 'none: --mode=evaluate makes them'
    raise UserError(
      f'{what} no score {name!r}{suggest(name, names)} (there: {there})'
    )
  return found


def comparison_digest(protocol: Mapping[str, Any]) -> str:
  """How a score was obtained, in short; not of what."""
  told = flatten(protocol)
  return protocol_digest(
    {k: told[k] for k in told if k not in OF_WHAT and told[k]}
  )
