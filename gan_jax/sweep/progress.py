"""Shows the progress of a sweep, a line for each change of a trial."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from gan_jax.training.summary import duration


class Row(NamedTuple):
  """The state of a trial."""

  params: str
  state: str = 'waiting'
  images: int = 0
  score: float | None = None
  line: str = ''


class Progress:
  """Prints the progress of the trials of a sweep.

  Args:
    score: The metric that ranks trials.
    total_images: The images of a trial, at most; None: the trials differ.
    trials: The number of trials still to run.
    parallel: The number of trials that run at the same time.
  """

  def __init__(
    self, score: str, total_images: int | None, trials: int, parallel: int
  ):
    self._score, self._total = score, total_images
    self._trials, self._parallel = trials, parallel
    self._rows: dict[int, Row] = {}
    self._seconds: list[float] = []

  def begin(self, trial_id: int, overrides: Mapping[str, Any]) -> None:
    """Adds a trial that is about to begin."""
    self._rows[trial_id] = Row(short(overrides))

  def update(self, trial_id: int, **changes: Any) -> None:
    """Changes fields of a trial; prints a new state or a new score."""
    before = self._rows[trial_id]
    row = self._rows[trial_id] = before._replace(**changes)
    if (row.state, row.score) == (before.state, before.score):
      return
    total = f'/{self._total:,}' if self._total else ''
    images = f'{row.images:,}{total} images' if row.images else ''
    score = '' if row.score is None else f'{self._score} {row.score:.5g}'
    state = f'{row.state}: {row.line}' if row.line else row.state
    cells = ', '.join(filter(None, [row.params, images, score, state]))
    print(f'Trial {trial_id}: {cells}', flush=True)

  def end(self, trial_id: int, seconds: float, **changes: Any) -> None:
    """Marks a trial as ended after this many seconds; estimates the rest."""
    self._seconds.append(seconds)
    self.update(trial_id, **changes)
    ended = len(self._seconds)
    rest = (self._trials - ended) * sum(self._seconds) / ended / self._parallel
    if rest > 0:
      left = duration(rest)
      print(f'{ended} of {self._trials} trials ended, about {left} left')


def short(overrides: Mapping[str, Any]) -> str:
  """Formats the parameters of a trial in one line."""
  names = short_names(overrides)
  written = lambda x: f'{x:.3g}' if isinstance(x, float) else f'{x}'
  return ' '.join(f'{names[key]}={written(x)}' for key, x in overrides.items())


def short_names(keys: Iterable[str]) -> dict[str, str]:
  """Shortens each key to the last parts that distinguish it from others."""
  parts = {key: key.split('.') for key in keys}

  def shorten(key: str) -> str:
    others = [parts[other] for other in parts if other != key]
    for size in range(1, len(parts[key])):
      last = parts[key][-size:]
      if all(other[-size:] != last for other in others):
        return '.'.join(last)
    return key

  return {key: shorten(key) for key in parts}
