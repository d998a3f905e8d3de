"""The results of a table: rows of runs, kept as JSON, checked and merged."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from experiments.base import base_config
from gan_jax.config import differences, flatten
from gan_jax.errors import UserError
from gan_jax.files import write_whole
from gan_jax.metrics.scores import LABELS_KEY, Score, check_same_protocol
from gan_jax.sweep.plan import to_json


class Run(NamedTuple):
  """One finished run of a row.

  Attributes:
    seed: Its seed.
    value: The score; None: the run diverged.
    std: Its standard deviation over evaluation seeds; None: there was one.
    images: Reals shown to D.
    hours: The time of training, without evaluations.
    hardware, versions: The machine that trained it.
    commands: The command that trains, and the one that evaluates.
  """

  seed: int
  value: float | None
  std: float | None
  images: int
  hours: float
  hardware: str
  versions: dict[str, str]
  commands: list[str]


class Row(NamedTuple):
  """An experiment with overrides, and its runs by increasing seed.

  Attributes:
    experiment: FILE.py or FILE.py:ARGUMENT.
    overrides: The overridden keys, as they were typed.
    settings: All keys on which the result depends, except the seed.
    runs: The finished runs.
  """

  experiment: str
  overrides: dict[str, str]
  settings: dict[str, Any]
  runs: list[Run]

  @property
  def title(self) -> str:
    """The experiment and its overrides, as a user types them."""
    words = [f'{key}={value}' for key, value in self.overrides.items()]
    return shlex.join([self.experiment, *words])


class Table(NamedTuple):
  """Rows whose scores were measured in one way.

  Attributes:
    score: The name of the score.
    best: Which value is the best, `lowest` or `highest`; None: neither.
    protocol: How it was measured; empty before the first score.
    rows: The rows, in the order in which they were added.
  """

  score: str
  best: str | None
  protocol: dict[str, Any]
  rows: list[Row]

  def with_rows(self, rows: list[Row], origin: str) -> 'Table':
    """Adds rows and runs; a run whose seed is present already is left out.

    Raises:
      UserError: A row of the same title has other settings.
    """
    merged = {row.title: row for row in self.rows}
    for row in rows:
      own = merged.get(row.title, row)
      _check_settings(own, row, origin)
      runs = {run.seed: run for run in (*row.runs, *own.runs)}
      merged[row.title] = own._replace(runs=[runs[x] for x in sorted(runs)])
    return self._replace(rows=list(merged.values()))

  def with_protocol(self, score: Score, origin: str) -> 'Table':
    """Records how a score was measured.

    Raises:
      UserError: The table's scores were measured in another way.
    """
    if self.protocol:
      own = score._replace(protocol=self.protocol)
      check_same_protocol({'the table': own, origin: score})
      if flatten(self.protocol).get(LABELS_KEY) is None:  # or it has no classes
        return self._replace(protocol=score.protocol)
      return self
    return self._replace(protocol=score.protocol, best=score.best)

  def merged(self, other: 'Table', origin: str) -> 'Table':
    """Adds all rows of another table.

    Raises:
      UserError: The other table has another score, protocol or settings.
    """
    if self.score != other.score:
      raise UserError(
        f'{origin} has scores of {other.score}, but this table has '
        f'{self.score}: merge tables of the same score'
      )
    table = self
    if other.protocol:
      score = Score(
        other.score, 0.0, None, None, None, other.protocol, best=other.best
      )
      table = self.with_protocol(score, origin)
    return table.with_rows(other.rows, origin)


def _check_settings(own: Row, other: Row, origin: str) -> None:
  changes = [
    (key, *values)
    for key, *values in differences(own.settings, other.settings, ignore=())
    if not _is_new(key, own, other)
  ]
  if changes:
    listed = '; '.join(f'{key} ({x} and {y})' for key, x, y in changes)
    raise UserError(
      f'{own.title} of this table and of {origin} differ in {listed}: give '
      'one of them another --output'
    )


def _is_new(key: str, *rows: Row) -> bool:
  """Whether a key exists in later versions only, and has its default there."""
  defaults = flatten(base_config().to_dict())
  values = [row.settings[key] for row in rows if key in row.settings]
  return len(values) < len(rows) and values == [to_json(defaults.get(key, ...))]


def read(path: Path) -> Table:
  """Reads a table.

  Raises:
    UserError: The file does not exist or is no table.
  """
  try:
    tree = json.loads(path.read_text())
    rows = [
      Row(**{**row, 'runs': [Run(**run) for run in row['runs']]})
      for row in tree.pop('rows')
    ]
    return Table(**tree, rows=rows)
  except OSError as error:
    raise UserError(f'cannot read {path}: {error.strerror}') from error
  except (ValueError, TypeError, KeyError, AttributeError) as error:
    raise UserError(
      f'{path} is not a table that benchmarks.table wrote: {error}'
    ) from error


def write(path: Path, table: Table) -> None:
  """Writes a table."""
  write_whole(path, json.dumps(as_json(table), indent=1) + '\n')


def as_json(table: Table) -> Mapping[str, Any]:
  """Returns a table as plain data, as `read` reads it."""
  rows = [
    {**row._asdict(), 'runs': [run._asdict() for run in row.runs]}
    for row in table.rows
  ]
  return {**table._asdict(), 'rows': rows}
