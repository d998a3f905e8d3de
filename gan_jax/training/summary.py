"""What is printed of a run: what it is, before it is played, and where it is.

Only by the process that writes.
"""

import datetime
import io
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import rich.console
import rich.table
from etils import epath
from jaxtyping import PyTree
from ml_collections import ConfigDict

from gan_jax import data, devices, games
from gan_jax.data.source import Source
from gan_jax.errors import warn
from gan_jax.games.game import Batch, Game
from gan_jax.pair import Variables, player_params
from gan_jax.training.evaluations import Evaluations
from gan_jax.training.schedule import Curve, Row, Table
from gan_jax.training.setup import is_resident
from gan_jax.training.state import State


def print_summary(
  config: ConfigDict,
  workdir: str | Path,
  table: Table,
  source: Source,
  state: State,
  sizes: Sequence[str],
  settings: Mapping[str, Any],
  evaluations: Evaluations | None,
) -> None:
  """Prints what is about to be trained, on what, and where it goes.

  Args:
    config, workdir, table, source: The run's.
    state: That it begins or resumes with.
    sizes: As of `sizes_of`.
    settings: What differs from the experiment's file, by key.
    evaluations: The run's, if it is evaluated.
  """
  if not devices.is_main():
    return
  step = int(devices.fetch(state.step))
  params = player_params(state.variables)
  count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
  print(f'Workdir:  {workdir}')
  if settings:
    print(f'Settings: {", ".join(f"{k}={x}" for k, x in settings.items())}')
  where = ', on the devices' if is_resident(config, source) else ', streamed'
  print(data.describe(config, source) + ('' if source.draw else where))
  print(
    f'Networks: G {count(params.gen):,} parameters, '
    f'D {count(params.disc):,} parameters'
  )
  print(f'Devices:  {devices.describe()} ({config.parallel})')
  print(
    f'Iterations:   {table.total_steps:,}, '
    f'{table.images(table.total_steps):,} images'
  )
  if evaluations is not None:
    print(evaluations.describe(config.evaluation.every_images))
  times = _times(workdir, table, step)
  print(describe_schedule(table, sizes, {'time': times} if any(times) else {}))
  side = config.data.resolution
  if table.stage_ends and sizes[-1] != f'{side}x{side}':
    warn(f'the run ends at {sizes[-1]}, and the data is of {side}x{side}')
  if advice := games.advice(config):
    warn(advice)
  if step:
    print(f'Resuming at iteration {step:,}, {table.images(step):,} images')
  if step >= table.total_steps:
    print('Nothing is left to do: a larger --config.total_images prolongs it')


def print_outcome(workdir: str | Path) -> None:
  """Prints where everything is, and how it is opened."""
  if devices.is_main():
    print(
      f'Done. Samples, metrics and checkpoints are in {workdir}\n'
      f"Open it:  import gan_jax; run = gan_jax.load('{workdir}'); run.show(64)"
    )


def sizes_of(
  config: ConfigDict, table: Table, gen_vars: Variables, shapes: Batch
) -> list[str]:
  """Of what G makes in each row: 4x4; of the shapes of its variables.

  Raises:
    UserError: There is no such stage.
  """
  game = games.make(config)
  found: dict[Any, str] = {}
  for row in table.rows:
    signature = table.signature(row.first_step)
    if signature not in found:
      play = partial(_play, game, phase=table.phase(row.first_step))
      fakes = jax.eval_shape(play, gen_vars, shapes)
      found[signature] = ', '.join(
        'x'.join(map(str, leaf.shape[1:3])) for leaf in jax.tree.leaves(fakes)
      )
  return [found[table.signature(row.first_step)] for row in table.rows]


def _play(game: Game, gen_vars: PyTree, batch: Batch, phase: Any) -> PyTree:
  keys = jax.random.split(jax.random.key(0), len(batch['example']))
  return game.generate(gen_vars, game.sample_inputs(keys, batch, phase), phase)[
    0
  ]


def describe_schedule(
  table: Table, sizes: Sequence[str], more: Mapping[str, Sequence[str]]
) -> str:
  """The rows of a schedule as a table.

  Args:
    table: The schedule.
    sizes: Of what G makes in each row.
    more: Further columns.
  """
  columns: dict[str, list[str]] = {}
  for row, size in zip(table.rows, sizes, strict=True):
    for name, cell in _cells(table, row, size).items():
      columns.setdefault(name, []).append(cell)
  drawn = rich.table.Table(box=None, pad_edge=False)
  columns = {k: cells for k, cells in columns.items() if any(cells)} | more
  for name in columns:
    drawn.add_column(name, justify='right')
  for cells in zip(*columns.values(), strict=True):
    drawn.add_row(*cells)
  written = io.StringIO()
  rich.console.Console(file=written, width=160).print(drawn)
  return '\n'.join(map(str.rstrip, written.getvalue().splitlines()))


def _cells(table: Table, row: Row, size: str) -> dict[str, str]:
  segment = row.segment
  steps = '' if segment.disc_steps == 1 else f'{segment.disc_steps}'
  own = segment.gen_batch_size
  pairs = zip(table.learning_rate, segment.factors.values(), strict=True)
  # Once, where they are the same.
  rates = dict.fromkeys(_ramp(factor, rate) for rate, factor in pairs)
  values = [f'{name} {_ramp(curve)}' for name, curve in segment.values.items()]
  return {
    'from image': f'{row.first_image:,}',
    'images': f'{row.steps * segment.images_per_step:,}',
    'stage': f'{segment.stage}',
    'G makes': size,
    'with': ', '.join(values),
    'batch': f'{segment.batch_size}',
    "G's own": '' if own is None else f'{own}',
    'D steps': steps,
    'learning rate': ', '.join(rates),
  }


def _ramp(curve: Curve, unit: float | int = 1) -> str:
  """In words: 0.0002 to 0 (linear); `unit`: what the ramp multiplies."""
  if not isinstance(curve, tuple):
    return f'{unit * curve:g}'
  shape, start, end = curve
  return f'{unit * start:g} to {unit * end:g} ({shape})'


def scheduled(
  table: Table, sizes: Sequence[str], step: int
) -> dict[str, float | int]:
  """What changes with time, as it is in `step`, for a line of metrics.

  Args:
    table: The schedule.
    sizes: Of what G makes in each row.
    iteration: Which.
  """
  phase = table.phase(step)
  values = {
    'gen_learning_rate': phase.learning_rate.gen,
    'disc_learning_rate': phase.learning_rate.disc,
    **phase.values,
  }
  # The shortest number that is this float32.
  told = {f'schedule/{name}': float(str(x)) for name, x in values.items()}
  if table.stage_ends:
    size = sizes[table.rows.index(table.row(step))]
    told['schedule/stage'] = phase.stage
    told['schedule/resolution'] = int(size.partition('x')[0])
  return told


def duration(seconds: float) -> str:
  """1:02:03."""
  return str(datetime.timedelta(seconds=round(seconds)))


def _times(workdir: str | Path, table: Table, until: int) -> list[str]:
  """The time that each segment takes, from `metrics.jsonl` up to step `until`.

  With the evaluations.
  """
  file = epath.Path(workdir).expanduser() / 'metrics.jsonl'
  seconds, seen = [0.0] * len(table.rows), [0] * len(table.rows)
  before = 0
  for line in file.read_text().splitlines() if file.exists() else ():
    try:
      said = json.loads(line)
      step, images, speed = (
        said[name] for name in ('step', 'images', 'images_per_second')
      )
    except (ValueError, KeyError, TypeError):
      continue  # a kill cut it short
    if step > until:
      break  # what came after the checkpoint is lost
    index = table.rows.index(table.row(step - 1))
    seconds[index] += (images - before) / speed + said.get('eval/seconds', 0)
    seen[index] += images - before
    before = images
  whole = [row.steps * row.segment.images_per_step for row in table.rows]
  return [
    duration(time * total / part) if part else ''
    for time, part, total in zip(seconds, seen, whole, strict=True)
  ]
