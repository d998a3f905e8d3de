"""Opens a sweep for reading, in a notebook for instance."""

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
# The columns of the table before and after the varied ones.
BEFORE = ['trial', 'state', 'score', 'images', 'seconds']
LINEAGE = ['generation', 'parent']  # of a population
AFTER = ['reason', 'workdir', 'command']


class Sweep:
  """A finished or running sweep, opened for reading.

  Attributes:
    folder: The workdir of the sweep.
    name, experiment: The sweep's name and its experiment.
    score, goal: The metric that ranks trials, and whether 'min' or 'max' of
      the metric is best.
    varied: The columns of `trials` that hold the varied keys.
    trials: A pandas DataFrame with one row for each trial. Its columns are
      `varied` and `trial`, `state`, `score`, `images`, `seconds`, `reason`,
      `workdir`, `command`.
  """

  def __init__(self, folder: str | Path):
    import pandas

    self.folder = str(epath.Path(folder).expanduser())
    about, table = (epath.Path(self.folder) / name for name in (ABOUT, TABLE))
    if not about.exists() or not table.exists():
      raise UserError(f'{folder} is not the workdir of a sweep: no {TABLE}')
    described = json.loads(about.read_text())
    self.name, self.experiment = described['name'], described['experiment']
    self.score, self.goal = described['score'], described['goal']
    self.trials = pandas.read_csv(io.StringIO(table.read_text()))
    fixed = (*BEFORE, *LINEAGE, *AFTER)
    self.varied = [name for name in self.trials if name not in fixed]

  def __repr__(self) -> str:
    return (
      f'Sweep({self.folder!r}, {self.name!r}: {len(self.trials)} trials by '
      f'{self.goal} {self.score})'
    )

  def ranked(self) -> 'pandas.DataFrame':
    """Returns the trials that finished, the best first."""
    return self._order(self.trials[self.trials.state == 'done'])

  def over_seeds(self) -> 'pandas.DataFrame':
    """Returns one row for each setting, the best first.

    `score` and `deviation` are the mean and the standard deviation over the
    seeds of the finished trials. A setting with a diverged seed comes last and
    has neither.
    """
    import pandas

    keys = [name for name in self.varied if name != 'seed']
    ended = self.trials[self.trials.state.isin(['done', 'diverged'])]
    parts = ended.groupby(keys, dropna=False) if keys else [((), ended)]
    rows = []
    for _, part in parts:
      diverged = int((part.state == 'diverged').sum())
      best = self._order(part).trial.iloc[0] if len(part) else None
      summary = {
        'score': None if diverged else part.score.mean(),
        'deviation': None if diverged else part.score.std(),
        'seeds': len(part),
        'diverged': diverged,
        'best': best,
      }
      rows.append({key: part[key].iloc[0] for key in keys} | summary)
    columns = [*keys, 'score', 'deviation', 'seeds', 'diverged', 'best']
    return self._order(pandas.DataFrame(rows, columns=columns))

  def row(self) -> Any:
    """Returns the row of the best trial.

    In a sweep over seeds, this is the best trial of the best setting.

    Raises:
      UserError: No trial has finished.
    """
    ranked = self.ranked()
    if not len(ranked):
      raise UserError(f'no trial of {self.folder} has finished yet')
    if 'seed' in self.varied:
      settings = self.over_seeds().dropna(subset='score')
      if len(settings):
        best = settings.best.iloc[0]
        return self.trials[self.trials.trial == best].iloc[0]
    return ranked.iloc[0]

  def best(self) -> Run:
    """Opens the run of the best trial."""
    return load(f'{self.folder}/{self.row().workdir}')

  def _order(self, trials: 'pandas.DataFrame') -> 'pandas.DataFrame':
    return trials.sort_values(
      'score', ascending=self.goal == 'min', ignore_index=True
    )
