"""How good a generator is: its samples, measured against the data.

A run is measured while it trains (`config.evaluation`), when it is finished
(`--mode=evaluate`), and images of any system in a notebook: always by the same
code, and every score carries how it was obtained.
"""

import itertools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict
from PIL import Image

from gan_jax import checkpoint, data, games, parallel, scores
from gan_jax import config as cfg
from gan_jax.data.folder import folder, images_below
from gan_jax.data.source import Source, Wanted, in_memory
from gan_jax.data.toys import is_toy, toy_of
from gan_jax.errors import UserError, choose, nearest, warn
from gan_jax.metrics import inception
from gan_jax.metrics.choice import Choice, choose_metrics
from gan_jax.metrics.evaluator import Evaluator
from gan_jax.run import Run, choose_step
from gan_jax.schedule import Table
from gan_jax.scores import Score

# What of `config.data` makes the images what they are.
DESCRIBED = ('source', 'split', 'crop', 'resolution', 'channels')
# What a notebook may say, and what holds where nobody does.
BLOCK = {
  'metrics': (),
  'features': None,
  'num_samples': 10_000,
  'seeds': 1,
  'held_out': None,
  'labels': None,
}
# Which labels a conditional G is given when it is measured.
LABELS = {
  'data': 'drawn from the labels of the data',
  'uniform': 'each class as often',
}
RESIZE = 'Lanczos, antialiased'


def make(
  config: ConfigDict, source: Source, classes: int | None = None
) -> Evaluator:
  """The evaluator that `config.evaluation` describes, for the run's data.

  Args:
    config, source: The run's.
    classes: Of the G that is measured; None: those of the run.
  """
  block = config.evaluation
  if classes is None:
    classes = config.data.get('classes', 0)
  labels = _labels(block, classes, source)
  held_out = None
  if block.held_out is not None:
    held_out = data.make(cfg.changed(config, 'data.split', block.held_out))
  described = {key: config.data[key] for key in DESCRIBED}
  # Where a folder is does not matter: what is in it has its own hash.
  if described['source'].startswith('folder:'):
    described['source'] = 'folder'
  described['resize'] = RESIZE
  name = config.data.source
  toy = toy_of(name) if is_toy(name) else None
  return Evaluator(block, source, described, held_out, toy, labels)


def choose_for(
  source: str, metrics: tuple[str, ...], features: str | None
) -> Choice:
  """As `choose_metrics`, for the data of that `config.data.source`."""
  toy = toy_of(source) if is_toy(source) else None
  return choose_metrics(metrics, features, toy)


def _labels(block: ConfigDict, classes: int, source: Source) -> str | None:
  """Which labels the fakes get; None: G is not conditional."""
  wanted = block.get('labels')
  if wanted is not None:
    choose('config.evaluation.labels', wanted, LABELS)
    if not classes:
      raise UserError(
        f'evaluation.labels={wanted!r}, and what is measured has no classes: '
        'set it to None (--config.evaluation.labels=None)'
      )
  if not classes:
    return None
  known = source.labels is not None and len(source.classes) == classes
  if wanted == 'data' and not known:
    raise UserError(
      f"evaluation.labels='data', and the data has not the {classes} classes "
      "of G: set it to 'uniform'"
    )
  return wanted or ('data' if known else 'uniform')


class Evaluated(NamedTuple):
  """What one evaluation gave, and the seconds that it took."""

  scores: list[Score]
  seconds: float

  @property
  def means(self) -> dict[str, float]:
    """As a line of metrics has them."""
    means = {f'eval/{score.name}': score.value for score in self.scores}
    for score in self.scores:
      if score.deviation is not None:
        means[f'eval/{score.name}_deviation'] = score.deviation
    return {**means, 'eval/seconds': float(f'{self.seconds:.4g}')}


class Evaluations:
  """The evaluations of a run that trains.

  Args:
    config, workdir, table, source: The run's.

  Raises:
    UserError: It cannot be measured as its config says.
  """

  def __init__(
    self,
    config: ConfigDict,
    workdir: str | Path,
    table: Table,
    source: Source,
  ):
    self.evaluator = make(config, source)
    self._workdir, self._table = workdir, table
    self._measure = self.evaluator.player(games.make(config))

  def describe(self, every_images: int) -> str:
    """What is measured, in a line; and what is missing, if anything is."""
    choice, network = self.evaluator.choice, self.evaluator.features
    line = f'Scores:   {", ".join(choice.metrics)}'
    if network is not None:
      line += f' (features: {network.name})'
    line += f' every {every_images:,} images'
    if choice.fell_back:
      line += f" (FID needs Inception's weights: {inception.where_to_get()})"
    return line

  def measure(self, ema: PyTree, round: int) -> Evaluated:
    """Measures the average G, as it is at `round`."""
    jax.block_until_ready(ema)  # what is still trained is not measured
    began = time.perf_counter()
    values = self._measure(ema, self._table.phase(round))
    fakes = of_ema(self.evaluator.labels)
    images = self._table.images(round)
    listed = self.evaluator.list_scores(values, fakes, round, images)
    return Evaluated(listed, time.perf_counter() - began)

  def record(self, evaluated: Evaluated) -> None:
    """Prints the scores, and adds them to `scores.jsonl`."""
    if not parallel.is_main():
      return
    images = evaluated.scores[0].images
    told = ', '.join(map(str, evaluated.scores))
    print(f'At {images:,} images: {told}', flush=True)
    try:
      scores.record(self._workdir, evaluated.scores)
    except (OSError, UserError) as error:
      warn(f'scores.jsonl of {self._workdir} is not written: {error}')

  def is_recorded(self, round: int) -> bool:
    """Whether `scores.jsonl` has the scores of `round`."""
    try:
      known = scores.read(self._workdir)
    except (OSError, UserError):
      known = []
    protocol = self.evaluator.protocol
    there = any(
      score.step == round and scores.way(score.stamp) == protocol
      for score in known
    )
    # Another process may not see the file yet.
    return bool(parallel.of_main(int(there)))


def evaluate(
  config: ConfigDict,
  workdir: str | Path,
  step: str | None = None,
  truncation: float | None = None,
) -> None:
  """Measures a run, prints its scores and adds them to `scores.jsonl`.

  Args:
    config: The run's; its `evaluation` may differ from what was trained with.
    workdir: The run's.
    step: Of which checkpoint: its rounds, `best`, `all`; None: the newest.
    truncation: As of `Run.inputs`.
  """
  cfg.check(config)
  cfg.read(workdir)
  cfg.check_workdir(config, workdir)
  evaluator = make(config, data.make(config))
  measure = _measurer(evaluator, config, truncation)
  writable = True
  for rounds in _steps(workdir, step, evaluator.main):
    ema = checkpoint.read(workdir, ('ema',), rounds)['ema']
    listed = measure(ema, rounds)
    if parallel.is_main():
      print(f'Round {rounds:,}: ' + ', '.join(map(str, listed)), flush=True)
      writable = writable and _try_to_record(workdir, listed)


def _try_to_record(workdir: str | Path, listed: list[Score]) -> bool:
  """Adds scores to `scores.jsonl`; warns where that cannot be written."""
  try:
    scores.record(workdir, listed)
  except OSError as error:
    warn(f'scores are not added to {workdir}: {error.strerror or error}')
    return False
  return True


def _measurer(
  evaluator: Evaluator, config: ConfigDict, truncation: float | None
) -> Callable[[PyTree, int], list[Score]]:
  """What measures a run's average G: (its variables, its rounds) -> scores."""
  measure = evaluator.player(games.make(config), truncation)
  table = cfg.table(config)

  def scored(ema: PyTree, rounds: int) -> list[Score]:
    gen_vars = parallel.replicate(jax.tree.map(np.asarray, ema))
    values = measure(gen_vars, table.phase(rounds))
    fakes = of_ema(evaluator.labels, truncation)
    images = table.images(rounds)
    return evaluator.list_scores(values, fakes, rounds, images)

  return scored


def of_ema(
  labels: str | None, truncation: float | None = None
) -> dict[str, Any]:
  """What a stamp says of fakes that the average of G has made.

  Args:
    labels: As of `Evaluator`.
    truncation: As of `Run.inputs`.
  """
  conditional = {} if labels is None else {'labels': labels}
  return {'generator': 'ema', 'truncation': truncation, **conditional}


def _steps(
  workdir: str | Path, step: str | None, main: str | None
) -> list[int]:
  if step == 'all':
    return checkpoint.steps(workdir)
  if step == 'best' and main is None:
    raise UserError('--step=best: none of config.evaluation.metrics tells it')
  if step is None or step == 'best':
    return [choose_step(workdir, None, main if step else None)]
  if not step.isdigit():
    raise UserError(f'--step={step} is to be a number of rounds, best or all')
  return [choose_step(workdir, int(step), None)]


def evaluate_here(
  run_or_images: Any, reference: Any = None, **how: Any
) -> dict[str, Score]:
  """See `gan_jax.evaluate`."""
  of_run = isinstance(run_or_images, Run)
  if reference is None:
    if not of_run:
      raise UserError('images are compared with something: name a reference')
    reference = run_or_images
  truncation = how.pop('truncation', None)
  block = _block([run_or_images, reference], how)
  shape = _shape(run_or_images, reference)
  classes = 0
  if of_run:
    classes = run_or_images.config.data.get('classes', 0)
  else:
    images = _source(run_or_images, shape)
    block.num_samples, block.seeds = images.size, 1
    block.labels = how.get('labels')
  if isinstance(reference, Run):
    config = reference.config.copy_and_resolve_references()
    config.evaluation = block
    evaluator = make(config, data.make(config), classes)
  else:
    resolution, channels = shape
    described = {'resolution': resolution, 'channels': channels}
    source = _source(reference, shape)
    labels = _labels(block, classes, source)
    evaluator = Evaluator(block, source, described, labels=labels)
  if of_run:
    run = run_or_images
    measure = _measurer(evaluator, run.config, truncation)
    listed = measure(run.params, run.step)
  else:
    listed = evaluator.list_scores(evaluator.of_images(images), {})
  return {score.name: score for score in listed}


def _block(given: list[Any], how: Mapping[str, Any]) -> ConfigDict:
  """The settings: what is said, else what the run has, else the usual."""
  for key in how:
    if key not in BLOCK:
      raise UserError(
        f'gan_jax.evaluate takes no {key!r}{nearest(key, BLOCK)} (valid: '
        f'{", ".join(BLOCK)}, truncation)'
      )
  runs = [x for x in given if isinstance(x, Run)]
  settings = runs[0].config.get('evaluation', {}) if runs else {}
  known = {key: settings[key] for key in BLOCK if key in settings}
  if runs and 'features' not in how:
    known['features'] = runs[0].features_of_config()
  block = {**BLOCK, **known, **how}
  if isinstance(block['metrics'], str):
    block['metrics'] = (block['metrics'],)
  block['metrics'] = tuple(block['metrics'])
  return ConfigDict(block)


def _shape(*given: Any) -> tuple[int, int]:
  """Resolution and channels, of which all that is given must be."""
  shapes = {
    (x.config.data.resolution, x.config.data.channels)
    if isinstance(x, Run)
    else (x.shape[1], x.shape[-1])
    for x in given
    if isinstance(x, Run) or _is_array(x)
  }
  if len(shapes) > 1:
    (one, other), *_ = itertools.combinations(sorted(shapes), 2)
    raise UserError(
      f'{one[0]}x{one[0]}x{one[1]} is not compared with '
      f'{other[0]}x{other[0]}x{other[1]}: they are other images'
    )
  return next(iter(shapes)) if shapes else (_size_of(given[0]), 3)


def _source(images: Any, shape: tuple[int, int]) -> Source:
  """Images from anywhere, as a source: an array, or a folder."""
  resolution, channels = shape
  if _is_array(images):
    if images.dtype != np.uint8 or images.shape[1:] != (resolution, *shape):
      raise UserError(
        f'images are uint8 [n, {resolution}, {resolution}, {channels}], not '
        f'{images.dtype} {list(images.shape)}'
      )
    return in_memory({'images': np.asarray(images)})
  if (size := _size_of(images)) != resolution:
    raise UserError(
      f'{images} has images of {size} pixels, to be compared with '
      f'{resolution}: resize one of them, in the way that you choose'
    )
  return folder(Wanted(str(images), resolution, channels))


def _is_array(x: Any) -> bool:
  return isinstance(x, np.ndarray | jax.Array)


def _size_of(images: str | Path) -> int:
  """The shorter side of the first image of a folder."""
  first = min(images_below(Path(images).expanduser()), default=None)
  if first is None:
    raise UserError(f'there are no images below {str(images)!r}')
  with Image.open(first) as opened:
    return min(opened.size)
