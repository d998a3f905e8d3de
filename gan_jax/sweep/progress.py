"""Shows the progress of a sweep: a live table, or a line for each change."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import rich.console
import rich.live
import rich.table

from gan_jax.training.summary import duration

# Rows of the live table: all running trials, and the newest that have ended.
MAX_ROWS = 24
ENDED = 'done', 'pruned', 'diverged', 'failed', 'stopped'


class Row(NamedTuple):
  """The state of a trial."""

  params: str
  state: str = 'waiting'
  images: int = 0
  score: float | None = None
  line: str = ''


class Progress:
  """Shows the trials of a sweep.

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
    self._console = rich.console.Console()
    self._live = rich.live.Live(
      get_renderable=self._table, console=self._console, refresh_per_second=2
    )

  def __enter__(self) -> 'Progress':
    if self._console.is_terminal:
      self._live.start()
    return self

  def __exit__(self, *exception: Any) -> None:
    if self._console.is_terminal:
      self._live.stop()

  def begin(self, trial_id: int, overrides: Mapping[str, Any]) -> None:
    """Adds a trial that is about to begin."""
    self._rows[trial_id] = Row(short(overrides))

  def update(self, trial_id: int, **changes: Any) -> None:
    """Changes fields of the trial's row."""
    before = self._rows[trial_id]
    row = self._rows[trial_id] = before._replace(**changes)
    changed = (row.state, row.score) != (before.state, before.score)
    if changed and not self._console.is_terminal:
      _, *cells = self._cells(trial_id, row)
      line = ', '.join(filter(None, cells))
      print(f'Trial {trial_id}: {line}', flush=True)

  def end(self, trial_id: int, seconds: float, **changes: Any) -> None:
    """Marks a trial as ended after this many seconds."""
    self._seconds.append(seconds)
    self.update(trial_id, **changes)

  def _cells(self, trial_id: int, row: Row) -> list[str]:
    images = f'{row.images:,}' if row.images else ''
    if self._total and row.images:
      images = f'{row.images:,}/{self._total:,}'
    score = '' if row.score is None else f'{row.score:.5g}'
    if score and not self._console.is_terminal:
      score = f'{self._score} {score}'
      images = f'{images} images'
    state = f'{row.state}: {row.line}' if row.line else row.state
    return [f'{trial_id}', row.params, images, score, state]

  def _table(self) -> rich.table.Table:
    table = rich.table.Table(box=None, pad_edge=False)
    for title in ('trial', 'parameters', 'images', self._score, 'state'):
      left = title in ('parameters', 'state')
      table.add_column(title, justify='left' if left else 'right')
    rows = sorted(self._rows.copy().items())  # this is another thread
    ended = [item for item in rows if item[1].state in ENDED]
    running = [item for item in rows if item[1].state not in ENDED]
    room = max(MAX_ROWS - len(running), 1)
    for trial_id, row in sorted(ended[-room:] + running):
      table.add_row(*self._cells(trial_id, row))
    table.caption = self._time_left()
    return table

  def _time_left(self) -> str:
    """Estimates the remaining time from the trials that have ended."""
    ended = len(self._seconds)
    if not ended:
      return ''
    mean = sum(self._seconds) / ended
    left = duration((self._trials - ended) * mean / self._parallel)
    return f'{ended} of {self._trials} trials ended, about {left} left'


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
