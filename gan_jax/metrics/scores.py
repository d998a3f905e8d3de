"""Scores of a run with their protocols, and the comparison of runs.

A score is meaningless without its protocol: published scores of the same GAN
on the same data differ twofold, because papers measure them differently. So
each score carries its protocol, and scores by different protocols are never
ranked.
"""

import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Container, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from etils import epath

from gan_jax.config import differences, flatten
from gan_jax.config import read as read_config
from gan_jax.errors import UserError, suggest
from gan_jax.files import held, is_remote, write_whole

if TYPE_CHECKING:
  import pandas

FILE = 'scores.jsonl'
# The keys of a protocol that identify the measured generator. Scores that
# differ only in these keys are comparable.
SUBJECT_KEYS = frozenset({'fakes.generator'})
# How the classes of a conditional generator were chosen; others have none.
LABELS_KEY = 'fakes.labels'


class Score(NamedTuple):
  """A score and its protocol.

  Attributes:
    name: fid, kid, precision, swd_16, ...
    value: The mean over evaluation seeds.
    std: The standard deviation over the seeds; None: there was one seed.
    step, images: The progress of the generator; None: images were evaluated.
    protocol: All that the value depends on, except the generator.
    ranks: Whether this score chooses the best checkpoint.
    best: Which value is the best: `lowest` or `highest`. None: the score does
      not rank generators, because its best value is that of the data, or of
      unseen data.
  """

  name: str
  value: float
  std: float | None
  step: int | None
  images: int | None
  protocol: dict[str, Any]
  ranks: bool = False
  best: str | None = 'lowest'

  def __repr__(self) -> str:
    """Formats the value: 10.564 +- 0.2."""
    std = '' if self.std is None else f' +- {self.std:.2g}'
    return f'{self.value:.5g}{std}'

  def __str__(self) -> str:
    """Formats the name and the value: fid 10.564 +- 0.2."""
    return f'{self.name} {self!r}'


def read(workdir: str | Path) -> list[Score]:
  """Reads all scores of a run, in the order in which they were recorded.

  Raises:
    UserError: The file is damaged.
  """
  file = epath.Path(workdir).expanduser() / FILE
  if not file.exists():
    return []
  try:
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [Score(**line) for line in lines]
  except (ValueError, TypeError) as error:
    raise UserError(f'{file} is damaged: {error}') from error


def record(workdir: str | Path, scores: Iterable[Score]) -> None:
  """Records scores; they replace those of the same step and protocol."""
  new = {_key(score): score for score in scores}
  _rewrite(workdir, lambda score: _key(score) not in new, new.values())


def forget_after(workdir: str | Path, step: int) -> None:
  """Removes the scores of later steps, which the run no longer has."""
  is_kept = lambda score: (score.step or 0) <= step
  if not all(map(is_kept, read(workdir))):
    _rewrite(workdir, is_kept)


def _rewrite(
  workdir: str | Path,
  is_kept: Callable[[Score], bool],
  new: Iterable[Score] = (),
) -> None:
  """Keeps some of the recorded scores, and appends new ones."""
  folder = epath.Path(workdir).expanduser()
  with contextlib.ExitStack() as stack:
    if not is_remote(folder):  # a run can be evaluated while it trains
      stack.enter_context(held(folder, lambda: None, '.scores.lock'))
    scores = [*filter(is_kept, read(workdir)), *new]
    lines = [json.dumps(score._asdict()) for score in scores]
    write_whole(folder / FILE, ''.join(f'{line}\n' for line in lines))


def best_steps(scores: Iterable[Score], steps: Container[int]) -> set[int]:
  """Returns the steps of the best checkpoints, one for each protocol.

  Args:
    scores: Scores that do not rank, or are not finite, are ignored.
    steps: The steps of the existing checkpoints.
  """
  best: dict[str, Score] = {}
  for score in scores:
    if score.ranks and score.step in steps and math.isfinite(score.value):
      other = best.setdefault(comparison_digest(score.protocol), score)
      if is_better(score, other):
        best[comparison_digest(score.protocol)] = score
  return {score.step for score in best.values()}


def is_better(one: Score, other: Score) -> bool:
  """Whether a score is better than another one of the same name."""
  if one.best == 'highest':
    return one.value > other.value
  return one.value < other.value


def protocol_digest(protocol: Any) -> str:
  """Computes a short digest of a protocol, or of any JSON value."""
  text = json.dumps(protocol, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def _key(score: Score) -> tuple[str, int | None, str]:
  """Identifies scores that replace each other."""
  return score.name, score.step, protocol_digest(score.protocol)


def compare(
  *runs: str | Path | Mapping[str, Score], name: str = 'fid'
) -> 'pandas.DataFrame':
  """Compares runs by a score, in a table with the best run first.

  Each run is represented by its newest score in the newest protocol that all
  runs share.

  Args:
    *runs: Workdirs, runs, or results of `gan_jax.evaluate`.
    name: The name of the score.

  Raises:
    UserError: A run has no such score, or the protocols differ.
  """
  import pandas

  if len(runs) < 2:
    raise UserError('compare needs at least two runs')
  runs = tuple(getattr(run, 'workdir', run) for run in runs)
  scores_per_run = [_read_scores(run, name) for run in runs]
  if scores_per_run[0][-1].best is None:
    raise UserError(
      f'{name} does not rank generators: its best value is that of the data, '
      'or of unseen data'
    )
  names = [
    str(run) if isinstance(run, str | Path) else f'evaluation {index}'
    for index, run in enumerate(runs, 1)
  ]
  by_digest = [
    {comparison_digest(score.protocol): score for score in scores}
    for scores in scores_per_run
  ]
  shared = set.intersection(*map(set, by_digest))
  # The newest protocol that all runs share. If there is none, the check below
  # raises an error with the differences.
  newest_first = [
    comparison_digest(score.protocol) for score in reversed(scores_per_run[0])
  ]
  digest = next((one for one in newest_first if one in shared), None)
  chosen = [
    newest.get(digest, scores[-1])
    for newest, scores in zip(by_digest, scores_per_run, strict=True)
  ]
  check_same_protocol(dict(zip(names, chosen, strict=True)))
  table = pandas.DataFrame(
    {
      'run': names,
      'step': [score.step for score in chosen],
      'images': [score.images for score in chosen],
      name: [score.value for score in chosen],
      'std': [score.std for score in chosen],
    }
  )
  return table.sort_values(
    name, ascending=chosen[0].best == 'lowest', ignore_index=True
  )


def check_same_protocol(scores: Mapping[str, Score]) -> None:
  """Raises a UserError, with the differences, if the protocols differ.

  Conditional and unconditional generators are comparable.
  """
  (first, one), *others = scores.items()
  for title, other in others:
    protocols = flatten(one.protocol), flatten(other.protocol)
    ignored = set(SUBJECT_KEYS)
    if any(flat.get(LABELS_KEY) is None for flat in protocols):
      ignored.add(LABELS_KEY)
    differing = [
      f'{key} ({x} and {y})'
      for key, x, y in differences(*protocols, ignore=ignored)
    ]
    if differing:
      raise UserError(
        f'cannot compare the {one.name} of {first} and {title}: their '
        f'protocols differ in {"; ".join(differing)}'
      )


def _read_scores(
  run: str | Path | Mapping[str, Score], name: str
) -> list[Score]:
  """Reads the scores of a name, at least one, the newest last."""
  if isinstance(run, Mapping):
    scores, subject = list(run.values()), 'the images have'
  else:
    scores, subject = read(run), f'{run} has'
    if not scores:
      read_config(run)  # raises an error if there is no run
  chosen = [score for score in scores if score.name == name]
  if not chosen:
    names = sorted({score.name for score in scores})
    valid = ', '.join(names) or 'none; compute them with --mode=evaluate'
    raise UserError(
      f'{subject} no score {name!r}{suggest(name, names)} (valid: {valid})'
    )
  return chosen


def comparison_digest(protocol: Mapping[str, Any]) -> str:
  """Computes a digest of a protocol, without the keys of the generator."""
  flat = flatten(protocol)
  return protocol_digest(
    {k: flat[k] for k in flat if k not in SUBJECT_KEYS and flat[k]}
  )
