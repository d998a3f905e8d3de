"""How a sweep goes: a live table, or a line for each piece of news."""

import threading
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import rich.console
import rich.live
import rich.table

from gan_jax.training.summary import duration

# The live table has room for so many trials: those that go, and the newest.
ROWS = 24
ENDED = 'done', 'pruned', 'diverged', 'failed', 'stopped'


class Row(NamedTuple):
  """What is known of a trial."""

  params: str
  state: str = 'waiting'
  images: int = 0
  score: float | None = None
  line: str = ''


class Show:
  """Shows the trials of a sweep; threads may speak at once.

  Args:
    score: What ranks them.
    total_images: Of a trial, at most; None: they differ.
    trials: How many there are in all.
    parallel: How many run at a time.
  """

  def __init__(
    self, score: str, total_images: int | None, trials: int, parallel: int
  ):
    self._score, self._total = score, total_images
    self._trials, self._parallel = trials, parallel
    self._rows: dict[int, Row] = {}
    self._seconds: list[float] = []
    self._lock = threading.Lock()
    self._console = rich.console.Console()
    self._live = rich.live.Live(
      get_renderable=self._table, console=self._console, refresh_per_second=2
    )

  def __enter__(self) -> 'Show':
    if self._console.is_terminal:
      self._live.start()
    return self

  def __exit__(self, *exception: Any) -> None:
    if self._console.is_terminal:
      self._live.stop()

  def begin(self, slot: int, overrides: Mapping[str, Any]) -> None:
    """A trial is about to begin."""
    self._set(slot, Row(short(overrides)))

  def update(self, slot: int, **what: Any) -> None:
    """Something of it has changed."""
    self._set(slot, self._rows[slot]._replace(**what))

  def end(self, slot: int, seconds: float, **what: Any) -> None:
    """It has ended, after so many seconds."""
    self._seconds.append(seconds)
    self.update(slot, **what)

  def _set(self, slot: int, row: Row) -> None:
    with self._lock:
      before = self._rows.get(slot, row)
      self._rows[slot] = row
    news = (row.state, row.score) != (before.state, before.score)
    if news and not self._console.is_terminal:
      cells = ' '.join(filter(None, self._cells(slot, row)))
      print(f'trial {cells}', flush=True)

  def _cells(self, slot: int, row: Row) -> list[str]:
    at = f'{row.images:,}' if row.images else ''
    if self._total and row.images:
      at = f'{row.images:,}/{self._total:,}'
    score = '' if row.score is None else f'{row.score:.5g}'
    if score and not self._console.is_terminal:
      score = f'{self._score} {score}'
      at = f'{at} images'
    state = f'{row.state}: {row.line}' if row.line else row.state
    return [f'{slot}', row.params, at, score, state]

  def _table(self) -> rich.table.Table:
    table = rich.table.Table(box=None, pad_edge=False)
    for title in ('trial', 'parameters', 'images', self._score, 'state'):
      left = title in ('parameters', 'state')
      table.add_column(title, justify='left' if left else 'right')
    with self._lock:
      rows = sorted(self._rows.items())
    over = [item for item in rows if item[1].state in ENDED]
    going = [item for item in rows if item[1].state not in ENDED]
    room = max(ROWS - len(going), 1)
    for slot, row in sorted(over[-room:] + going):
      table.add_row(*self._cells(slot, row))
    table.caption = self._left()
    return table

  def _left(self) -> str:
    """How long it may still take, by the trials that have ended."""
    over = len(self._seconds)
    if not over:
      return ''
    rest = (self._trials - over) * sum(self._seconds) / over / self._parallel
    return f'{over} of {self._trials} ended, about {duration(rest)} left'


def short(overrides: Mapping[str, Any]) -> str:
  """The parameters of a trial in a line."""
  names = short_names(overrides)
  say = lambda x: f'{x:.3g}' if isinstance(x, float) else f'{x}'
  return ' '.join(f'{names[key]}={say(x)}' for key, x in overrides.items())


def short_names(keys: Iterable[str]) -> dict[str, str]:
  """Each key by as many of its last parts as tell it from the others."""
  parts = {key: key.split('.') for key in keys}

  def end(key: str) -> str:
    others = [parts[other] for other in parts if other != key]
    for size in range(1, len(parts[key])):
      last = parts[key][-size:]
      if all(other[-size:] != last for other in others):
        return '.'.join(last)
    return key

  return {key: end(key) for key in parts}
