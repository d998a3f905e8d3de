"""Reports a sweep: its plan, its table, its plot, and its results."""

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

from gan_jax.config import differences, flatten, with_tuples
from gan_jax.errors import UserError
from gan_jax.files import write_whole
from gan_jax.sweep import space as spaces
from gan_jax.sweep.executors import Executor
from gan_jax.sweep.plan import Plan, planned_trials
from gan_jax.sweep.progress import short, short_names
from gan_jax.sweep.results import (
  ABOUT,
  AFTER,
  BEFORE,
  LINEAGE,
  PICTURE,
  TABLE,
  Sweep,
)
from gan_jax.sweep.study import (
  generation,
  inherited,
  trials_by_id,
  workdir_of,
)

STATES = {
  TrialState.COMPLETE: 'done',
  TrialState.FAIL: 'failed',
  TrialState.PRUNED: 'pruned',
  TrialState.RUNNING: 'running',
  TrialState.WAITING: 'waiting',
}
# The number of trials that the results list, the best first.
MAX_LISTED = 12


def print_plan(plan: Plan, workdir: str, executor: Executor) -> None:
  """Prints what the sweep is about to run."""
  listed = planned_trials(plan)
  print(f'Sweep:    {plan.name} of {plan.experiment}')
  print(f'Workdir:  {workdir}')
  kind = 'a complete grid'
  if plan.settings is not None:
    seeds = len(listed) // plan.settings
    kind = f'a search ({plan.sampler})'
    kind += (
      f', {plan.settings} settings with {seeds} seeds each' if seeds > 1 else ''
    )
  if plan.population is not None:
    size = plan.population['size']
    interval = plan.population['interval_images']
    kind = (
      f'a population of {size} in {len(listed) // size} generations of '
      f'{interval:,} images'
    )
  print(f'Trials:   {len(listed)}, {kind}')
  best = {'min': 'lowest', 'max': 'highest'}[plan.goal]
  print(f'Score:    {plan.score} (the {best} is best)')
  print('Varied:')
  for title, choice in plan.space.items():
    print(f'  {title}: {_describe(choice)}')
  if plan.base:
    print(f'Fixed:    {short(plan.base)}')
  if plan.pruner:
    options = {key: x for key, x in plan.pruner.items() if key != 'name'}
    given = ', '.join(f'{key} {x:,}' for key, x in options.items())
    print(f'Pruner:   {plan.pruner["name"]}{given and f" ({given})"}')
  if plan.population is not None:
    total = plan.population['size'] * plan.total_images
    print(f'Images:   {total:,} in total')
  elif plan.total_images:
    total = len(listed) * plan.total_images
    print(
      f'Images:   at most {plan.total_images:,} in each trial, {total:,} in '
      'total'
    )
  if plan.cost:
    print(f'Cost:     {plan.cost}')
  print(f'Workers:  {executor.description}', flush=True)


def _describe(choice: Any) -> str:
  if spaces.is_range(choice):
    log = ', on a log scale' if choice.get('log') else ''
    return f'{choice["low"]:g} to {choice["high"]:g}{log}'
  return ', '.join(map(str, choice))


def print_commands(plan: Plan, workdir: str, executor: Executor) -> None:
  """Prints the commands of the trials whose parameters are already known."""
  unknown = 0
  for trial_id, params in enumerate(planned_trials(plan)):
    try:
      fixed = FixedTrial(params or {})
      overrides = spaces.suggest(fixed, plan.space)
    except ValueError:
      unknown += 1
      continue
    flags = plan.flags({**overrides, **plan.inherited(trial_id, None)})
    flags.append(f'--workdir={workdir_of(workdir, trial_id)}')
    print(executor.command(flags, trial_id))
  if unknown:
    print(
      f'({unknown} more trials: the sampler chooses them by the scores of '
      'the others)'
    )


def check_workdir(plan: Plan, folder: str) -> None:
  """Refuses a workdir that holds another sweep, or other files."""
  file = epath.Path(folder) / ABOUT
  if not file.exists():
    if file.parent.is_dir() and any(file.parent.iterdir()):
      raise UserError(
        f'{folder} holds no sweep, but is not empty: name another --workdir'
      )
    return
  there = flatten(json.loads(file.read_text()))
  here = flatten(json.loads(json.dumps(plan.identity())))
  differing = [
    f'{key} ({x} there, {y} here)'
    for key, x, y in differences(there, here, ignore=())
  ]
  if differing:
    raise UserError(
      f'{folder} holds another sweep: name another --workdir '
      f'({"; ".join(differing)})'
    )


def write_description(plan: Plan, folder: str) -> None:
  """Writes `sweep.json`, which identifies the sweep."""
  file = epath.Path(folder) / ABOUT
  try:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, json.dumps(plan.identity(), indent=2) + '\n')
  except OSError as error:
    raise UserError(f'cannot write to {folder}: {error.strerror}') from error


def write_table(study: optuna.Study, plan: Plan, folder: str) -> None:
  """Writes `sweep.csv`, the table of all trials."""
  lineage = [] if plan.population is None else LINEAGE
  columns = [*BEFORE, *lineage, *spaces.titles(plan.space), *AFTER]
  text = io.StringIO()
  writer = csv.DictWriter(text, columns, lineterminator='\n')
  writer.writeheader()
  for trial_id, trial in trials_by_id(study).items():
    writer.writerow(_row(trial_id, trial, plan, folder))
  write_whole(epath.Path(folder) / TABLE, text.getvalue())


def _row(
  trial_id: int, trial: FrozenTrial, plan: Plan, folder: str
) -> dict[str, Any]:
  attrs = trial.user_attrs
  state, how = STATES[trial.state], attrs.get('ended')
  if trial.state == TrialState.RUNNING and how == 'stopped':
    state = 'waiting'
  diverged = trial.state == TrialState.COMPLETE and how == 'diverged'
  reported = trial.intermediate_values.get(trial.last_step)
  score = trial.value if trial.state == TrialState.COMPLETE else reported
  row = {
    'trial': trial_id,
    'state': 'diverged' if diverged else state,
    'score': score if score is not None and math.isfinite(score) else None,
    'images': attrs.get('images', trial.last_step),
    'seconds': attrs.get('seconds'),
    'reason': attrs.get('line') if diverged or state == 'failed' else None,
    'workdir': workdir_of('', trial_id).lstrip('/'),
  }
  try:
    overrides = spaces.suggest(FixedTrial(trial.params), plan.space)
  except ValueError:
    return row  # the sampler has not chosen yet
  if plan.population is not None:
    row['generation'] = generation(plan, trial_id)
    row['parent'] = attrs.get('parent')
  settings = {**overrides, **inherited(plan, folder, trial)}
  command = shlex.join(['python', 'launch.py', *plan.flags(settings)])
  blocks = spaces.chosen_blocks(trial.params, plan.space)
  values = {**overrides, **with_tuples(attrs.get('resolved') or {})}
  return {**row, **values, **blocks, 'command': command}


def resolved(workdir: str, plan: Plan) -> dict[str, Any]:
  """Returns the varied keys as the trial's `config.json` has them.

  These are also keys that the chosen block does not set. A key that the trial
  does not have, such as `b1` without Adam, is None.
  """
  try:
    text = (epath.Path(workdir) / 'config.json').read_text()
    settings = flatten(json.loads(text))
  except (OSError, ValueError):
    return {}  # the trial ended before it wrote the file
  return {key: settings.get(key) for key in spaces.keys(plan.space)}


def write_plot(study: optuna.Study, plan: Plan, folder: str) -> str | None:
  """Writes `sweep.png`, a plot of parallel coordinates; returns its path.

  None: fewer than two trials have a score.
  """
  done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
  done = [trial for trial in done if math.isfinite(trial.value)]
  if len(done) < 2:
    return None
  matplotlib.use('Agg')
  plot = optuna.visualization.matplotlib.plot_parallel_coordinate
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # about an axis with a single value
    axes = plot(study, target_name=plan.score)
  names = sorted({name for trial in done for name in trial.params})
  shortened = short_names(names)
  labels = [plan.score, *(shortened[name] for name in names)]
  axes.set_xticks(range(len(labels)), labels, rotation=15, ha='right')
  axes.set_title('')
  # Optuna's default colours draw bad trials white on white.
  axes.collections[-1].set_cmap('viridis')
  axes.figure.set_size_inches(max(6.4, 1.9 * len(labels)), 4.2)
  encoded = io.BytesIO()
  axes.figure.savefig(encoded, dpi=100, bbox_inches='tight')
  matplotlib.pyplot.close(axes.figure)
  path = epath.Path(folder) / PICTURE
  path.write_bytes(encoded.getvalue())
  return str(path)


def print_results(folder: str, plot_path: str | None) -> None:
  """Prints the results, and how to repeat and open the best trial."""
  sweep = Sweep(folder)
  states = sweep.trials.state.value_counts()
  counts = ', '.join(f'{count} {state}' for state, count in states.items())
  print(f'\n{len(sweep.trials)} trials: {counts}')
  names = short_names(sweep.varied)
  if 'seed' in sweep.varied:
    columns = [c for c in sweep.varied if c != 'seed']
    columns += ['score', 'deviation', 'seeds']
    _print_table(sweep.over_seeds()[columns], names, sweep.score)
  else:
    columns = ['trial', *sweep.varied, 'score', 'images', 'seconds']
    _print_table(sweep.ranked()[columns], names, sweep.score)
  for _, row in sweep.trials[sweep.trials.reason.notna()].iterrows():
    print(f'Trial {row.trial} {row.state}: {row.reason}')
  best = sweep.row()
  load = f"gan_jax.load('{folder}/{best.workdir}')"
  print(f'\nBest: trial {best.trial}, {sweep.score} {best.score:.5g}')
  print(f'Repeat it:   {best.command}')
  print(f'Open it:     import gan_jax; run = {load}; run.show(64)')
  print(f"All trials:  gan_jax.load_sweep('{folder}'), {folder}/{TABLE}")
  if plot_path:
    print(f'Plot:        {plot_path}')


def _print_table(frame: Any, names: Mapping[str, str], score: str) -> None:
  table = rich.table.Table(box=None, pad_edge=False)
  for column in frame:
    table.add_column(
      score if column == 'score' else names.get(column, column), justify='right'
    )
  for values in frame.head(MAX_LISTED).itertuples(index=False):
    table.add_row(*map(_cell, values))
  rich.console.Console().print(table)
  if len(frame) > MAX_LISTED:
    print(f'(and {len(frame) - MAX_LISTED} more)')


def _cell(value: Any) -> str:
  if isinstance(value, float):
    if not math.isfinite(value):
      return ''
    return f'{value:.0f}' if abs(value) >= 1000 else f'{value:.4g}'
  return f'{value}'
