"""Evaluates a run, with the same code during training and afterwards.

Every score carries the protocol by which it was computed.
"""

import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jaxtyping import PyTree
from ml_collections import ConfigDict

from gan_jax import config as cfg
from gan_jax import data, devices, games
from gan_jax.data.source import Source, entry_source
from gan_jax.errors import UserError, warn
from gan_jax.metrics import inception, scores
from gan_jax.metrics.choice import Choice, choose_metrics
from gan_jax.metrics.evaluator import Evaluator
from gan_jax.metrics.extractor import CheckStop
from gan_jax.metrics.protocols import protocol_of, with_protocol
from gan_jax.metrics.scores import Score
from gan_jax.metrics.standing import make_standing_fn
from gan_jax.registry import choose
from gan_jax.training.schedule import Schedule, make_schedule
from gan_jax.training.stopping import StopRequested

# Keys of `config.data` that determine the images.
DESCRIBED = ('split', 'crop', 'resolution', 'channels')


# The labels that a conditional G receives in an evaluation.
LABELS = {
  'data': 'sampled from the labels of the data',
  'uniform': 'all classes equally often',
}

RESIZE = 'Lanczos, antialiased'


def make_evaluators(
  config: ConfigDict, source: Source, classes: int | None = None
) -> tuple[Evaluator, ...]:
  """Makes the evaluator of each output, as `config.evaluation` describes it.

  Args:
    config, source: The config and the data source of the run.
    classes: Number of classes of the evaluated G. None: that of the run.
  """
  block, game = config.evaluation, games.make(config)
  if classes is None:
    classes = config.data.get('classes', 0)
  protocol = protocol_of(block)
  if protocol is not None and source.toy is not None:
    raise UserError(
      f'config.evaluation.protocol={block.protocol!r} is one of images, and '
      'the data are points: set it to None'
    )
  block = with_protocol(block, source.size, classes)
  labels = labels_for(block, classes, source)
  described = {key: config.data[key] for key in DESCRIBED}
  described['resize'] = RESIZE
  held_out = None
  if block.held_out is not None:
    held_out = data.make(cfg.changed(config, 'data.split', block.held_out))
  inputs = None
  if game.reads:  # G's inputs, and its reference, are held-out data
    inputs, held_out = held_out or source, None
    described['split'] = block.held_out or config.data.split
  evaluators = []
  for name, output in game.outputs.items():
    key = output.reference if output.reference in source.parts else 'source'
    # The path of a folder does not matter: its contents have their own hash.
    kind = config.data[key]
    kind = 'folder' if kind.startswith('folder:') else kind
    evaluators.append(
      Evaluator(
        block,
        entry_source(inputs or source, output.reference),
        {**described, 'source': kind},
        held_out,
        labels,
        inputs,
        output=name if len(game.outputs) > 1 else None,
        paired=output.target is not None,
        max_reals=protocol and protocol.max_reals,
      )
    )
  return tuple(evaluators)


def choose_for(
  config: ConfigDict, metrics: tuple[str, ...], features: str | None
) -> Choice:
  """Calls `choose_metrics` for the data of a config."""
  return choose_metrics(metrics, features, data.toy_of(config))


def labels_for(block: ConfigDict, classes: int, source: Source) -> str | None:
  """Returns the row of LABELS for the fakes; None: G is unconditional."""
  labels = block.get('labels')
  if labels is not None:
    choose('config.evaluation.labels', labels, LABELS)
    if not classes:
      raise UserError(
        f'config.evaluation.labels={labels!r} needs a conditional generator: '
        'set it to None (--config.evaluation.labels=None)'
      )
  if not classes:
    return None
  known = source.labels is not None and len(source.classes) == classes
  if labels == 'data' and not known:
    raise UserError(
      f"config.evaluation.labels='data' needs data with the {classes} classes "
      "of the generator: set it to 'uniform'"
    )
  return labels or ('data' if known else 'uniform')


class _Stopped(Exception):
  """A stop was requested during an evaluation."""

  def __init__(self, stop: signal.Signals):
    self.stop = stop


class Evaluated(NamedTuple):
  """The result of one evaluation.

  Attributes:
    scores: Its scores; none, if it was ended early.
    seconds: Its duration.
    stop: The request to stop that ended it early, if one did.
  """

  scores: list[Score]
  seconds: float
  stop: signal.Signals | None = None

  @property
  def means(self) -> dict[str, float]:
    """Returns the scores by their log names, `eval/NAME`."""
    means = {f'eval/{score.name}': score.value for score in self.scores}
    for score in self.scores:
      if score.std is not None:
        means[f'eval/{score.name}_std'] = score.std
    return {**means, 'eval/seconds': float(f'{self.seconds:.4g}')}


class Evaluations:
  """Evaluates a run during training.

  Args:
    config, workdir, schedule, source: Those of the run.

  Raises:
    UserError: `config.evaluation` does not suit the run.
  """

  def __init__(
    self,
    config: ConfigDict,
    workdir: str | Path,
    schedule: Schedule,
    source: Source,
  ):
    self.evaluators = make_evaluators(config, source)
    self._workdir, self._schedule = workdir, schedule
    self._scores = make_measure(self.evaluators, config)

  def describe(self, every_images: int) -> str:
    """Describes the metrics in one line, and what FID lacks, if anything."""
    main = self.evaluators[0]
    choice, network = main.choice, main.features
    line = f'Scores:   {", ".join(choice.metrics)}'
    if network is not None:
      line += f' (features: {network.name})'
    line += f' every {every_images:,} images'
    if choice.fell_back:
      line += (
        f" (FID needs Inception's weights: {inception.FILE.where_to_get()})"
      )
    return line

  def measure(
    self, ema: PyTree, step: int, stop_requested: StopRequested
  ) -> Evaluated:
    """Evaluates the EMA of G at `step`, unless a stop is requested meanwhile.

    An evaluation can take longer than a preempted machine stays.
    """
    jax.block_until_ready(ema)  # excludes training from the measured time
    start = time.perf_counter()

    def check_stop() -> None:
      if (stop := stop_requested()) is not None:
        raise _Stopped(stop)

    try:
      listed, stop = self._scores(ema, step, check_stop), None
    except _Stopped as stopped:
      listed, stop = [], stopped.stop
    return Evaluated(listed, time.perf_counter() - start, stop)

  def record(self, evaluated: Evaluated) -> None:
    """Prints the scores and appends them to `scores.jsonl`."""
    if not devices.is_main():
      return
    images = evaluated.scores[0].images
    listed = ', '.join(map(str, evaluated.scores))
    print(f'At {images:,} images: {listed}', flush=True)
    try:
      scores.record(self._workdir, evaluated.scores)
    except (OSError, UserError) as error:
      warn(f'cannot write scores.jsonl of {self._workdir}: {error}')

  def forget_after(self, step: int) -> None:
    """Forgets the scores of steps that the run has lost, in `scores.jsonl`."""
    if not devices.is_main():
      return
    try:
      scores.forget_after(self._workdir, step)
    except (OSError, UserError) as error:
      warn(f'cannot write scores.jsonl of {self._workdir}: {error}')

  def is_recorded(self, step: int) -> bool:
    """Returns whether `scores.jsonl` has the scores of `step`."""
    try:
      known = scores.read(self._workdir)
    except (OSError, UserError):
      known = []
    recorded_digests = {
      scores.comparison_digest(score.protocol)
      for score in known
      if score.step == step
    }
    recorded = all(
      evaluator.comparison_digest in recorded_digests
      for evaluator in self.evaluators
    )
    # Another process may not see the file yet.
    return bool(devices.broadcast_from_main(int(recorded)))


def make_measure(
  evaluators: Sequence[Evaluator],
  config: ConfigDict,
  truncation: float | None = None,
) -> Callable[..., list[Score]]:
  """Makes a function (EMA of G, on every device; step) -> scores.

  Its optional third argument is a `CheckStop`.
  """
  schedule, game = make_schedule(config), games.make(config)
  exact = games.make(cfg.changed(config, 'precision', 'float32'))
  standing = evaluators[0].standing_batches
  use_standing = None
  if standing is not None:
    use_standing = make_standing_fn(game, standing, config.batch_size)
  measures = [
    (evaluator, evaluator.make_evaluate_fn(game, truncation, exact))
    for evaluator in evaluators
  ]

  def scored(
    ema: PyTree, step: int, check_stop: CheckStop = lambda: None
  ) -> list[Score]:
    phase, images = schedule.phase(step), schedule.images(step)
    if use_standing is not None:
      ema = use_standing(ema, phase, check_stop)
    listed = []
    for evaluator, measure in measures:
      fakes = of_ema(evaluator.labels, truncation, standing)
      values = measure(ema, phase, check_stop)
      listed += evaluator.list_scores(values, fakes, step, images)
    return listed

  return scored


def of_ema(
  labels: str | None,
  truncation: float | None = None,
  standing: int | None = None,
) -> dict[str, Any]:
  """Returns the protocol entries of fakes generated by the EMA of G.

  Args:
    labels: See `Evaluator`.
    truncation: See `Run.inputs`.
    standing: Number of batches of the standing statistics; None: there are
      none.
  """
  more = {} if labels is None else {'labels': labels}
  if standing is not None:
    more['standing_batches'] = standing
  return {'generator': 'ema', 'truncation': truncation, **more}
