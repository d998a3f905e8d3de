"""The schedule: all settings that change during training.

`Schedule.phase(step)` is a pure function. Segments are given in images (reals
shown to D) and converted once into whole dispatches of iterations. Constant
settings are a schedule of one segment.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from gan_jax import config as cfg
from gan_jax.bounds import BOUNDS, Bound
from gan_jax.errors import UserError
from gan_jax.games.game import Phase
from gan_jax.pair import Pair
from gan_jax.registry import check_keys, choose

# A constant, or (shape, start, end) over the segment; `shape` is a key of
# SHAPES.
Curve = float | int | tuple[str, float | int, float | int]

# Upper limit of the images of a dispatch: all their indices are in memory.
MAX_DISPATCH_IMAGES = 2**24
# Integer fields of a segment, and their bounds.
COUNTS = {
  'batch_size': BOUNDS['batch_size'],
  'disc_steps': BOUNDS['disc_steps'],
  'gen_batch_size': BOUNDS['gen_batch_size'],
  'images': BOUNDS['total_images'],
  'stage': Bound(int, 0, 64),
}
# Fields of a segment that multiply the learning rates.
FACTORS = 'gen_learning_rate_factor', 'disc_learning_rate_factor'
# The scheduled value that sets the half-life of the EMA of G, in images.
EMA_HALFLIFE = 'ema_halflife_images'

# (progress in the segment, 0 to 1) -> weight of the end value, 0 to 1.
SHAPES: dict[str, Callable[[float], float]] = {
  'cosine': lambda progress: (1 - math.cos(math.pi * progress)) / 2,
  'linear': lambda progress: progress,
}


@dataclasses.dataclass(frozen=True)
class Segment:
  """One entry of `config.schedule`.

  A field that the entry omits has its value from the top level of the config. A
  string instead of a number is a key of `config.growth`.

  Attributes:
    images: Length in reals shown to D. None: to the end of the run, where the
      curves of the segment end too.
    gen_learning_rate_factor, disc_learning_rate_factor: Curves that multiply
      the optimizers' learning rates.
    values: Curves by name: `alpha`, or the key of the config whose value they
      override: a weight or noise of the game, a hyperparameter such as
      `optimizer.gen.b2`, `ema_halflife_images`.
    Others: See `Phase`.
  """

  disc_steps: int
  batch_size: int
  gen_batch_size: int | None
  gen_learning_rate_factor: Curve = 1.0
  disc_learning_rate_factor: Curve = 1.0
  images: int | None = None
  stage: int = 0
  values: Mapping[str, Curve] = dataclasses.field(default_factory=dict)

  @property
  def images_per_step(self) -> int:
    return self.batch_size * self.disc_steps

  @property
  def factors(self) -> dict[str, Curve]:
    """The factors of the learning rates, by field."""
    return {name: getattr(self, name) for name in FACTORS}

  @property
  def curves(self) -> dict[str, Curve]:
    """Everything that may change within the segment, by name."""
    return {**self.factors, **self.values}


@dataclasses.dataclass(frozen=True)
class PlacedSegment:
  """A segment with its position in the run.

  Attributes:
    segment: The segment.
    first_step, first_image, first_disc_step: Iterations, images and D updates
      before the segment.
    steps: Number of iterations of the segment in this run.
    curve_steps: Number of iterations that its curves span, a fraction if its
      images are not whole iterations; larger than `steps` if the run ends
      within the segment.
  """

  segment: Segment
  first_step: int
  first_image: int
  first_disc_step: int
  steps: int
  curve_steps: float

  @property
  def end_step(self) -> int:
    return self.first_step + self.steps


@dataclasses.dataclass(frozen=True)
class Schedule:
  """The schedule of a run.

  Attributes:
    segments: Consecutive segments; the run ends with the last one.
    learning_rate: Learning rates of the optimizers, which the factors of the
      segments multiply.
    steps_per_dispatch: Iterations in one compiled call. A segment is a whole
      number of dispatches, so that a resumed run has the same dispatches as an
      uninterrupted one.
    ema_halflife_images: Half-life of the EMA of G, in images.
    ema_rampup: Upper limit of the half-life, as a fraction of the images seen,
      so that the EMA soon forgets the initial G (Karras et al. 2020,
      StyleGAN2-ADA). None: no limit.
  """

  segments: tuple[PlacedSegment, ...]
  learning_rate: Pair[float]
  steps_per_dispatch: int
  ema_halflife_images: int
  ema_rampup: float | None

  @property
  def total_steps(self) -> int:
    return self.segments[-1].end_step

  @property
  def follows_its_end(self) -> bool:
    """Whether phases depend on the length of the run."""
    last = self.segments[-1].segment
    curves = last.curves.values()
    return last.images is None and any(isinstance(x, tuple) for x in curves)

  def segment_at(self, step: int) -> PlacedSegment:
    """Returns the segment of iteration `step`; past the end, the last one."""
    for placed in self.segments:
      if step < placed.end_step:
        return placed
    return self.segments[-1]

  @property
  def stage_ends(self) -> list[int]:
    """The iterations at which a new stage begins."""
    stages = [(x.end_step, x.segment.stage) for x in self.segments]
    return [
      end
      for (end, stage), (_, following) in itertools.pairwise(stages)
      if stage != following
    ]

  def images(self, step: int) -> int:
    """Returns the number of reals shown to D before iteration `step`."""
    placed = self.segment_at(step)
    done = step - placed.first_step
    return placed.first_image + done * placed.segment.images_per_step

  def phase(self, step: int) -> Phase:
    """Returns the phase of iteration `step`."""
    placed = self.segment_at(step)
    segment, done = placed.segment, step - placed.first_step
    progress = min(done / placed.curve_steps, 1.0)
    values = {k: _value(x, progress) for k, x in segment.values.items()}
    halflife = values.pop(EMA_HALFLIFE, self.ema_halflife_images)
    if self.ema_rampup is not None:
      halflife = min(halflife, self.ema_rampup * self.images(step))
    decay = 0.5 ** (segment.images_per_step / halflife) if halflife else 0.0
    rates = [
      np.float32(rate * _value(factor, progress))
      for rate, factor in zip(
        self.learning_rate, segment.factors.values(), strict=True
      )
    ]
    return Phase(
      stage=segment.stage,
      disc_steps=segment.disc_steps,
      batch_size=segment.batch_size,
      gen_batch_size=segment.gen_batch_size,
      learning_rate=Pair(*rates),
      ema_decay=np.float32(decay),
      disc_step=np.int32(placed.first_disc_step + done * segment.disc_steps),
      values={name: np.float32(value) for name, value in values.items()},
    )

  def signature(self, step: int) -> Any:
    """Returns the static part of a phase: it determines the program."""
    return jax.tree.structure(self.phase(step))

  def dispatch(self, step: int) -> Phase:
    """Returns the stacked phases of the dispatch that begins at `step`."""
    phases = [self.phase(step + i) for i in range(self.steps_per_dispatch)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *phases)


def make_schedule(config: ConfigDict) -> Schedule:
  """Makes a schedule of `config.schedule` and the top-level settings.

  Raises:
    UserError: A segment is invalid.
  """
  segments = config.get('schedule', ({},))
  if not (
    isinstance(segments, tuple)
    and segments
    and all(isinstance(segment, Mapping) for segment in segments)
  ):
    raise UserError(f'config.schedule={segments!r} must be a tuple of dicts')
  return place_segments(
    [look_up_keys(segment, config) for segment in segments],
    defaults={
      'batch_size': config.batch_size,
      'gen_batch_size': config.gen_batch_size,
      'disc_steps': config.disc_steps,
    },
    learning_rate=Pair(
      gen=config.optimizer.gen.learning_rate,
      disc=config.optimizer.disc.learning_rate,
    ),
    total_images=config.total_images,
    steps_per_dispatch=config.steps_per_dispatch,
    ema_halflife_images=config.ema_halflife_images,
    ema_rampup=config.ema_rampup,
  )


def look_up_keys(
  segment: Mapping[str, Any], config: ConfigDict
) -> dict[str, Any]:
  """Replaces the keys of `config.growth` in a segment by their values."""
  known = cfg.flatten(config.to_dict().get('growth', {}), 'growth.')
  look_up = lambda key: choose('key of config.schedule', key, known)
  return {
    k: look_up(x) if isinstance(x, str) else x for k, x in segment.items()
  }


def place_segments(
  segments: Sequence[Mapping[str, Any]],
  *,
  defaults: Mapping[str, Any],
  learning_rate: Pair[float],
  total_images: int | None,
  steps_per_dispatch: int,
  ema_halflife_images: int,
  ema_rampup: float | None,
) -> Schedule:
  """Completes the segments with the defaults and places them end to end.

  The run ends at `total_images`, or with the last segment if that is None. If
  `total_images` lies beyond the last segment, training continues with the
  segment's final values. Every segment is rounded up to whole dispatches. The
  phases do not depend on `total_images`, so that a run can be extended, unless
  the last segment has a curve and no length (`Schedule.follows_its_end`).

  Raises:
    UserError: A segment is invalid, or a learning rate is 0 before the end.
  """
  checked = [_segment(i, {**defaults, **x}) for i, x in enumerate(segments)]
  placed = []
  step = image = disc_step = 0
  for index, segment in enumerate(checked):
    last = index == len(checked) - 1
    if segment.images is None and not (last and total_images):
      raise UserError(
        f'config.schedule[{index}] has no length: set its images, or '
        'config.total_images if it is the last'
      )
    left = segment.images if total_images is None else total_images - image
    if left <= 0:
      break
    dispatch = segment.images_per_step * steps_per_dispatch
    _check_dispatch(steps_per_dispatch, dispatch)
    whole = lambda n, per=dispatch: math.ceil(n / per) * steps_per_dispatch
    steps = whole(left if last else min(segment.images, left))
    curve_steps = float(steps)
    if segment.images is not None:
      curve_steps = segment.images / segment.images_per_step
    placed.append(
      PlacedSegment(segment, step, image, disc_step, steps, curve_steps)
    )
    if last and segment.images is not None and left > segment.images:
      _check_goes_on(index, segment, image + segment.images)
    step += steps
    image += steps * segment.images_per_step
    disc_step += steps * segment.disc_steps
  if max(step, disc_step) >= 2**31:  # both are int32 on the devices
    raise UserError(
      f'config.total_images={total_images} makes {step:,} iterations: at most '
      f'{2**31 - 1:,} are possible'
    )
  return Schedule(
    tuple(placed),
    learning_rate,
    steps_per_dispatch,
    ema_halflife_images,
    ema_rampup,
  )


def _value(curve: Curve, progress: float) -> float | int:
  """Evaluates a curve at a progress of 0 to 1."""
  if not isinstance(curve, tuple):
    return curve
  shape, start, end = curve
  return start + (end - start) * SHAPES[shape](progress)


def _check_dispatch(steps_per_dispatch: int, images: int) -> None:
  """Raises UserError if the indices of a dispatch would fill the memory."""
  if images > MAX_DISPATCH_IMAGES:
    raise UserError(
      f'config.steps_per_dispatch={steps_per_dispatch}: one dispatch shows '
      f'{images:,} images to D, and at most {MAX_DISPATCH_IMAGES:,} are '
      'possible: set fewer steps, or a smaller batch'
    )


def _check_goes_on(index: int, segment: Segment, images: int) -> None:
  """Raises UserError if training would continue with a learning rate of 0."""
  for name, curve in segment.factors.items():
    if _value(curve, 1.0) == 0:
      raise UserError(
        f'config.schedule[{index}]: {name} is 0 from image {images:,} on, but '
        "config.total_images is larger: remove the segment's images, so that "
        'it lasts to the end of the run'
      )


def _segment(index: int, fields: Mapping[str, Any]) -> Segment:
  """Checks the fields of a segment and makes it."""
  where = f'config.schedule[{index}]'
  check_keys(where, fields, [x.name for x in dataclasses.fields(Segment)])
  for key, bound in COUNTS.items():
    value = fields.get(key, bound.low)
    if problem := bound.problem(value):
      raise UserError(f'{where}: {key}={value!r} {problem}')
  for name in FACTORS:
    _check_curve(f'{where}: {name}', fields.get(name, 1.0), positive=True)
  values = fields.get('values', {})
  if not isinstance(values, Mapping):
    raise UserError(f"{where}: values={values!r} must be {{'NAME': CURVE}}")
  for name, curve in values.items():
    _check_curve(f'{where}: {name}', curve, positive=name != 'alpha')
  return Segment(**fields)


def _check_curve(where: str, curve: Any, positive: bool) -> None:
  """Raises UserError for an invalid curve."""
  ends = [curve]
  if isinstance(curve, tuple):
    if len(curve) != 3 or not isinstance(curve[0], str):
      raise UserError(
        f"{where}={curve!r} must be a number or ('linear', START, END)"
      )
    choose(f'shape of {where}', curve[0], SHAPES)
    ends = list(curve[1:])
  for end in ends:
    if isinstance(end, bool) or not isinstance(end, int | float):
      raise UserError(f'{where}={curve!r}: {end!r} is not a number')
    if not math.isfinite(end):
      raise UserError(f'{where}={curve!r} must be finite')
    if positive and end < 0:
      raise UserError(f'{where}={curve!r} must be 0 or more')
