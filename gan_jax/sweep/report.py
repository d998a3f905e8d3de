"""What is said of a sweep: what it will run, its table, its last words."""

import csv
import io
import json
import math
import shlex
import warnings
from collections.abc import Mapping
from typing import Any

import matplotlib
import optuna
import rich.console
import rich.table
from etils import epath
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from gan_jax.config import differences, flatten
from gan_jax.errors import UserError
from gan_jax.files import write_whole
from gan_jax.sweep import space as spaces
from gan_jax.sweep.plan import Plan, entries
from gan_jax.sweep.process import Place
from gan_jax.sweep.results import ABOUT, AFTER, BEFORE, PICTURE, TABLE, Sweep
from gan_jax.sweep.show import short, short_names
from gan_jax.sweep.study import by_slot, workdir_of

STATES = {
  TrialState.COMPLETE: 'done',
  TrialState.FAIL: 'failed',
  TrialState.PRUNED: 'pruned',
  TrialState.RUNNING: 'running',
  TrialState.WAITING: 'waiting',
}
# The last words have room for so many trials: the best.
LISTED = 12


def announce(plan: Plan, workdir: str, places: list[Place]) -> None:
  """Prints what is about to be run."""
  listed = entries(plan)
  print(f'Sweep:    {plan.name} of {plan.experiment}')
  print(f'Workdir:  {workdir}')
  kind = 'all of a grid'
  if plan.settings is not None:
    seeds = len(listed) // plan.settings
    kind = f'a search ({plan.sampler})'
    kind += f', {plan.settings} settings of {seeds} seeds' if seeds > 1 else ''
  print(f'Trials:   {len(listed)}, {kind}; by {plan.goal} {plan.score}')
  print('Varied:')
  for title, choice in plan.space.items():
    print(f'  {title}: {_said(choice)}')
  if plan.base:
    print(f'All have: {short(plan.base)}')
  if plan.pruner:
    rule = ', '.join(f'{key} {x:,}' if isinstance(x, int) else f'{x}'
                     for key, x in plan.pruner.items())  # fmt: skip
    print(f'Pruned:   by {rule}')
  if plan.total_images:
    total = len(listed) * plan.total_images
    print(f'Images:   {plan.total_images:,} a trial at most, {total:,} in all')
  if plan.cost:
    print(f'Cost:     {plan.cost}')
  print(f'Where:    {"; ".join(place.name for place in places)}', flush=True)


def _said(choice: Any) -> str:
  if spaces.is_range(choice):
    log = ', on a log scale' if choice.get('log') else ''
    return f'{choice["low"]:g} to {choice["high"]:g}{log}'
  return ', '.join(map(str, choice))


def rehearse(plan: Plan, workdir: str, places: list[Place]) -> None:
  """Prints the trials' commands, as far as they are known beforehand."""
  open_ones = 0
  for slot, params in enumerate(entries(plan)):
    try:
      fixed = FixedTrial(params or {})
      overrides = spaces.suggest(fixed, plan.space)
    except ValueError:
      open_ones += 1
      continue
    flags = plan.flags(overrides)
    flags.append(f'--workdir={workdir_of(workdir, slot)}')
    print(places[slot % len(places)].command(flags))
  if open_ones:
    print(f'({open_ones} more: the engine chooses them by the scores of these)')


def check(plan: Plan, folder: str) -> None:
  """Refuses a folder that holds another sweep, or something else."""
  file = epath.Path(folder) / ABOUT
  if not file.exists():
    if file.parent.is_dir() and any(file.parent.iterdir()):
      raise UserError(
        f'{folder} holds no sweep, but is not empty: name another'
      )
    return
  there = flatten(json.loads(file.read_text()))
  here = flatten(json.loads(json.dumps(plan.identity())))
  differing = [
    f'{key} ({x} there, {y} here)'
    for key, x, y in differences(there, here, but=())
  ]
  if differing:
    raise UserError(
      f'{folder} holds another sweep: name another --workdir '
      f'({"; ".join(differing)})'
    )


def begin(plan: Plan, folder: str) -> None:
  """Notes what the sweep is."""
  file = epath.Path(folder) / ABOUT
  try:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, json.dumps(plan.identity(), indent=2) + '\n')
  except OSError as error:
    raise UserError(f'cannot write to {folder}: {error.strerror}') from error


def write_table(study: optuna.Study, plan: Plan, folder: str) -> None:
  """Writes `sweep.csv`, as the trials stand."""
  columns = [*BEFORE, *spaces.titles(plan.space), *AFTER]
  text = io.StringIO()
  writer = csv.DictWriter(text, columns, lineterminator='\n')
  writer.writeheader()
  for slot, trial in by_slot(study).items():
    writer.writerow(_row(slot, trial, plan))
  write_whole(epath.Path(folder) / TABLE, text.getvalue())


def _row(slot: int, trial: FrozenTrial, plan: Plan) -> dict[str, Any]:
  attrs = trial.user_attrs
  state, how = STATES[trial.state], attrs.get('ended')
  if trial.state == TrialState.FAIL and how == 'left':
    state = 'waiting'
  diverged = trial.state == TrialState.COMPLETE and how == 'diverged'
  reported = trial.intermediate_values.get(trial.last_step)
  score = trial.value if trial.state == TrialState.COMPLETE else reported
  row = {
    'trial': slot,
    'state': 'diverged' if diverged else state,
    'score': score if score is not None and math.isfinite(score) else None,
    'images': attrs.get('images', trial.last_step),
    'seconds': attrs.get('seconds'),
    'reason': attrs.get('line') if diverged or state == 'failed' else None,
    'workdir': workdir_of('', slot).lstrip('/'),
  }
  try:
    overrides = spaces.suggest(FixedTrial(trial.params), plan.space)
  except ValueError:
    return row  # the engine has not chosen yet
  command = shlex.join(['python', 'launch.py', *plan.flags(overrides)])
  blocks = spaces.chosen(trial.params, plan.space)
  return {**row, **overrides, **blocks, 'command': command}


def draw(study: optuna.Study, plan: Plan, folder: str) -> str | None:
  """Writes `sweep.png`, the engine's parallel coordinates; None: too few."""
  done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
  done = [trial for trial in done if math.isfinite(trial.value)]
  if len(done) < 2:
    return None
  matplotlib.use('Agg')
  plot = optuna.visualization.matplotlib.plot_parallel_coordinate
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # of an axis that has one value
    axes = plot(study, target_name=plan.score)
  names = sorted({name for trial in done for name in trial.params})
  short = short_names(names)
  labels = [plan.score, *(short[name] for name in names)]
  axes.set_xticks(range(len(labels)), labels, rotation=15, ha='right')
  axes.set_title('')
  # (The engine's blues are white where a trial is far behind.)
  axes.collections[-1].set_cmap('viridis')
  axes.figure.set_size_inches(max(6.4, 1.9 * len(labels)), 4.2)
  drawn = io.BytesIO()
  axes.figure.savefig(drawn, dpi=100, bbox_inches='tight')
  matplotlib.pyplot.close(axes.figure)
  path = epath.Path(folder) / PICTURE
  path.write_bytes(drawn.getvalue())
  return str(path)


def say(folder: str, picture: str | None) -> None:
  """Prints the results, and how the best of them is run again, and opened."""
  sweep = Sweep(folder)
  states = sweep.trials.state.value_counts()
  counts = ', '.join(f'{count} {state}' for state, count in states.items())
  print(f'\n{len(sweep.trials)} trials: {counts}')
  names = short_names(sweep.varied)
  if 'seed' in sweep.varied:
    columns = [c for c in sweep.varied if c != 'seed']
    columns += ['score', 'deviation', 'seeds']
    _print(sweep.over_seeds()[columns], names, sweep.score)
  else:
    columns = ['trial', *sweep.varied, 'score', 'images', 'seconds']
    _print(sweep.ranked()[columns], names, sweep.score)
  for _, row in sweep.trials[sweep.trials.reason.notna()].iterrows():
    print(f'Trial {row.trial} {row.state}: {row.reason}')
  best = sweep.row()
  load = f"gan_jax.load('{folder}/{best.workdir}')"
  print(f'\nBest: trial {best.trial}, {sweep.score} {best.score:.5g}')
  print(f'Run it again:  {best.command}')
  print(f'Open it:       import gan_jax; run = {load}; run.show(64)')
  print(f"All of them:   gan_jax.load_sweep('{folder}'), {folder}/{TABLE}")
  if picture:
    print(f'Picture:       {picture}')


def _print(frame: Any, names: Mapping[str, str], score: str) -> None:
  drawn = rich.table.Table(box=None, pad_edge=False)
  for column in frame:
    drawn.add_column(
      score if column == 'score' else names.get(column, column), justify='right'
    )
  for values in frame.head(LISTED).itertuples(index=False):
    drawn.add_row(*map(_cell, values))
  rich.console.Console().print(drawn)
  if len(frame) > LISTED:
    print(f'(and {len(frame) - LISTED} more)')


def _cell(value: Any) -> str:
  if isinstance(value, float):
    if not math.isfinite(value):
      return ''
    return f'{value:.0f}' if abs(value) >= 1000 else f'{value:.4g}'
  return f'{value}'
