"""The run summary, printed by the main process before and after training."""

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
from gan_jax.config import flatten
from gan_jax.data.source import Source
from gan_jax.errors import warn
from gan_jax.games.game import Batch, Game
from gan_jax.pair import Variables, player_params
from gan_jax.registry import code_names
from gan_jax.training.evaluations import Evaluations
from gan_jax.training.feed import is_resident
from gan_jax.training.schedule import Curve, PlacedSegment, Schedule
from gan_jax.training.state import State


def print_summary(
  config: ConfigDict,
  workdir: str | Path,
  schedule: Schedule,
  source: Source,
  state: State,
  sizes: Sequence[str],
  settings: Mapping[str, Any],
  evaluations: Evaluations | None,
  initial: Sequence[str] = (),
) -> None:
  """Prints the workdir, data, networks, devices and schedule of a run.

  Args:
    config, workdir, schedule, source: Those of the run.
    state: The state with which training starts or resumes.
    sizes: The size of the fakes in each segment; see `sizes_of`.
    settings: The settings that differ from the experiment's file, by key.
    evaluations: Those of the run; None: the run is not evaluated.
    initial: Lines about the weights that the run starts from.
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
  for line in initial:
    print(line)
  print(f'Devices:  {devices.describe()} ({config.parallel})')
  print(
    f'Length:   {schedule.total_steps:,} iterations, '
    f'{schedule.images(schedule.total_steps):,} images'
  )
  if evaluations is not None:
    print(evaluations.describe(config.evaluation.every_images))
  times = _times(workdir, schedule, step)
  more = {'time': times} if any(times) else {}
  print(describe_schedule(schedule, sizes, more))
  size = f'{config.data.resolution}x{config.data.resolution}'
  if schedule.stage_ends and sizes[-1] != size:
    warn(f'the run ends at {sizes[-1]}, but the data is {size}')
  if advice := games.advice(config):
    warn(advice)
  if step:
    print(f'Resuming at iteration {step:,}, {schedule.images(step):,} images')
  if step >= schedule.total_steps:
    print(
      f'Training is already complete ({schedule.images(step):,} images): '
      'extend it with a larger --config.total_images'
    )


def print_outcome(config: ConfigDict, workdir: str | Path) -> None:
  """Prints where the results are and how to open them."""
  own_code = code_names(flatten(config.to_dict()))
  arguments = f"'{workdir}'" + ', trust=True' * bool(own_code)
  if devices.is_main():
    print(
      f'Done. Samples, metrics and checkpoints are in {workdir}\n'
      f'Open it:  import gan_jax; run = gan_jax.load({arguments}); run.show(64)'
    )


def sizes_of(
  config: ConfigDict, schedule: Schedule, gen_vars: Variables, shapes: Batch
) -> list[str]:
  """Returns the size of the fakes in each segment, as 4x4.

  Only shapes are computed.

  Raises:
    UserError: A stage does not exist.
  """
  game = games.make(config)
  sizes: dict[Any, str] = {}
  for placed in schedule.segments:
    signature = schedule.signature(placed.first_step)
    if signature not in sizes:
      phase = schedule.phase(placed.first_step)
      generate = partial(_generate, game, phase=phase)
      fakes = jax.eval_shape(generate, gen_vars, shapes)
      sizes[signature] = ', '.join(
        'x'.join(map(str, leaf.shape[1:3])) for leaf in jax.tree.leaves(fakes)
      )
  return [sizes[schedule.signature(x.first_step)] for x in schedule.segments]


def _generate(game: Game, gen_vars: PyTree, batch: Batch, phase: Any) -> PyTree:
  keys = jax.random.split(jax.random.key(0), len(batch['example']))
  inputs = game.sample_inputs(keys, batch, phase)
  return game.generate(gen_vars, inputs, phase)[0]


def describe_schedule(
  schedule: Schedule, sizes: Sequence[str], more: Mapping[str, Sequence[str]]
) -> str:
  """Formats the schedule as a table with one row per segment.

  Args:
    schedule: The schedule.
    sizes: The size of the fakes in each segment.
    more: Further columns: their cells by name.
  """
  columns: dict[str, list[str]] = {}
  for placed, size in zip(schedule.segments, sizes, strict=True):
    for name, cell in _cells(schedule, placed, size).items():
      columns.setdefault(name, []).append(cell)
  table = rich.table.Table(box=None, pad_edge=False)
  columns = {k: cells for k, cells in columns.items() if any(cells)} | more
  for name in columns:
    table.add_column(name, justify='right')
  for cells in zip(*columns.values(), strict=True):
    table.add_row(*cells)
  written = io.StringIO()
  rich.console.Console(file=written, width=160).print(table)
  return '\n'.join(map(str.rstrip, written.getvalue().splitlines()))


def _cells(
  schedule: Schedule, placed: PlacedSegment, size: str
) -> dict[str, str]:
  segment = placed.segment
  steps = '' if segment.disc_steps == 1 else f'{segment.disc_steps}'
  gen_batch_size = segment.gen_batch_size
  pairs = zip(schedule.learning_rate, segment.factors.values(), strict=True)
  # One number if both players have the same learning rate.
  rates = dict.fromkeys(_describe(factor, rate) for rate, factor in pairs)
  values = [f'{name} {_describe(x)}' for name, x in segment.values.items()]
  return {
    'from image': f'{placed.first_image:,}',
    'images': f'{placed.steps * segment.images_per_step:,}',
    'stage': f'{segment.stage}',
    'size': size,
    'scheduled': ', '.join(values),
    'batch': f'{segment.batch_size}',
    "G's batch": '' if gen_batch_size is None else f'{gen_batch_size}',
    'D steps': steps,
    'learning rate': ', '.join(rates),
  }


def _describe(curve: Curve, unit: float | int = 1) -> str:
  """Formats a curve, multiplied by `unit`, as 0.0002 to 0 (linear)."""
  if not isinstance(curve, tuple):
    return f'{unit * curve:g}'
  shape, start, end = curve
  return f'{unit * start:g} to {unit * end:g} ({shape})'


def duration(seconds: float) -> str:
  """Formats seconds as 1:02:03."""
  return str(datetime.timedelta(seconds=round(seconds)))


def _times(workdir: str | Path, schedule: Schedule, until: int) -> list[str]:
  """Returns the duration of each segment, from `metrics.jsonl` up to `until`.

  Durations include evaluations. An incomplete segment is extrapolated.
  """
  file = epath.Path(workdir).expanduser() / 'metrics.jsonl'
  seconds = [0.0] * len(schedule.segments)
  trained = [0] * len(schedule.segments)
  before = 0
  for text in file.read_text().splitlines() if file.exists() else ():
    try:
      line = json.loads(text)
      step, images, speed = (
        line[name] for name in ('step', 'images', 'images_per_second')
      )
    except (ValueError, KeyError, TypeError):
      continue  # an incomplete line, or one without training metrics
    if step > until:
      break  # after the checkpoint that the run resumes from
    index = schedule.segments.index(schedule.segment_at(step - 1))
    seconds[index] += (images - before) / speed + line.get('eval/seconds', 0)
    trained[index] += images - before
    before = images
  lengths = [x.steps * x.segment.images_per_step for x in schedule.segments]
  return [
    duration(time * length / part) if part else ''
    for time, part, length in zip(seconds, trained, lengths, strict=True)
  ]
