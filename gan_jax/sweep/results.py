"""A sweep that was run, opened for reading: what a notebook works with."""

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etils import epath

from gan_jax.errors import UserError
from gan_jax.runs.run import Run, load

if TYPE_CHECKING:
  import pandas

TABLE, ABOUT, PICTURE = 'sweep.csv', 'sweep.json', 'sweep.png'
# Before and after the columns of what varies.
BEFORE = ['trial', 'state', 'score', 'images', 'seconds']
AFTER = ['reason', 'workdir', 'command']


class Sweep:
  """A sweep that was run, or still goes, opened for reading.

  Attributes:
    folder: Where it is.
    name, experiment: What was swept.
    score, goal: What ranks its trials, and whether 'min' or 'max' of it.
    varied: The columns of `trials` that say what varies.
    trials: A pandas DataFrame, a row a trial: those, and `state`, `score`,
      `images`, `seconds`, `reason`, `workdir`, `command`.
  """

  def __init__(self, folder: str | Path):
    import pandas

    self.folder = str(epath.Path(folder).expanduser())
    about, table = (epath.Path(self.folder) / name for name in (ABOUT, TABLE))
    if not about.exists() or not table.exists():
      raise UserError(f'{folder} is not the workdir of a sweep: no {TABLE}')
    told = json.loads(about.read_text())
    self.name, self.experiment = told['name'], told['experiment']
    self.score, self.goal = told['score'], told['goal']
    self.trials = pandas.read_csv(io.StringIO(table.read_text()))
    named = (*BEFORE, *AFTER)
    self.varied = [name for name in self.trials if name not in named]

  def __repr__(self) -> str:
    return (
      f'Sweep({self.folder!r}, {self.name!r}: {len(self.trials)} trials by '
      f'{self.goal} {self.score})'
    )

  def ranked(self) -> 'pandas.DataFrame':
    """The trials that came to their end, the best first."""
    return self._order(self.trials[self.trials.state == 'done'])

  def over_seeds(self) -> 'pandas.DataFrame':
    """A row a setting, the best first: mean and deviation over its seeds.

    Of the trials that came to their end; a setting with a seed that diverged
    comes last, without them.
    """
    import pandas

    keys = [name for name in self.varied if name != 'seed']
    ended = self.trials[self.trials.state.isin(['done', 'diverged'])]
    parts = ended.groupby(keys, dropna=False) if keys else [((), ended)]
    rows = []
    for _, part in parts:
      diverged = int((part.state == 'diverged').sum())
      best = self._order(part).trial.iloc[0] if len(part) else None
      told = {
        'score': None if diverged else part.score.mean(),
        'deviation': None if diverged else part.score.std(),
        'seeds': len(part),
        'diverged': diverged,
        'best': best,
      }
      rows.append({key: part[key].iloc[0] for key in keys} | told)
    columns = [*keys, 'score', 'deviation', 'seeds', 'diverged', 'best']
    return self._order(pandas.DataFrame(rows, columns=columns))

  def row(self) -> Any:
    """Of the best trial; with several seeds, the best one of the best setting.

    Raises:
      UserError: No trial has come to its end.
    """
    ranked = self.ranked()
    if not len(ranked):
      raise UserError(f'no trial of {self.folder} has come to its end')
    if 'seed' in self.varied:
      settings = self.over_seeds().dropna(subset='score')
      if len(settings):
        best = settings.best.iloc[0]
        return self.trials[self.trials.trial == best].iloc[0]
    return ranked.iloc[0]

  def best(self) -> Run:
    """The run of the best trial."""
    return load(f'{self.folder}/{self.row().workdir}')

  def _order(self, trials: 'pandas.DataFrame') -> 'pandas.DataFrame':
    return trials.sort_values(
      'score', ascending=self.goal == 'min', ignore_index=True
    )
