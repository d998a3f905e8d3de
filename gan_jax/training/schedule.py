"""What changes with time: a table of segments, and phase(iteration), pure.

Segments are given in images (reals shown to D) and turned, once, into whole
dispatches of iterations. Constant settings are the trivial table, of one
segment.
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

# A constant, or (shape, start, end), a row of SHAPES: over the segment.
Curve = float | int | tuple[str, float | int, float | int]

# Images of a dispatch, whose indices are in memory at once.
MOST_IN_DISPATCH = 2**24
# Of a segment: what is counted.
SIZES = {
  'batch_size': BOUNDS['batch_size'],
  'disc_steps': BOUNDS['disc_steps'],
  'gen_batch_size': BOUNDS['gen_batch_size'],
  'images': BOUNDS['total_images'],
  'stage': Bound(int, 0, 64),
}
# Of a segment: what multiplies the learning rates.
FACTORS = 'gen_learning_rate_factor', 'disc_learning_rate_factor'

# (share of the segment that is over, 0 to 1) -> share of the way, start to end.
SHAPES: dict[str, Callable[[float], float]] = {
  'cosine': lambda share: (1 - math.cos(math.pi * share)) / 2,
  'linear': lambda share: share,
}


@dataclasses.dataclass(frozen=True)
class Segment:
  """A stretch of training, as an experiment's `schedule` gives it.

  What a segment leaves out is as at the top of the config; in place of a value
  it may have the key under which `config.growth` has it.

  Attributes:
    images: Its length in reals shown to D; None: to the end of the run, which
      its ramps then follow.
    gen_learning_rate_factor, disc_learning_rate_factor: Ramps, by which the
      optimizer's learning rate is multiplied.
    values: Ramps, by name.
    The others: as in `Phase`.
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
    """The factors of the learning rates, by their field."""
    return {name: getattr(self, name) for name in FACTORS}

  @property
  def curves(self) -> dict[str, Curve]:
    """All that may change within the segment, by name."""
    return {**self.factors, **self.values}


@dataclasses.dataclass(frozen=True)
class Row:
  """A segment, placed on the axis of iterations.

  `iterations` is its length in the run, `ramp_rounds` the length that its ramps
  take: its own, wherever the run ends.
  """

  segment: Segment
  first_step: int
  first_image: int
  first_disc_step: int
  steps: int
  curve_steps: int

  @property
  def end_step(self) -> int:
    return self.first_step + self.steps


@dataclasses.dataclass(frozen=True)
class Table:
  """The whole course of a run.

  Attributes:
    rows: The segments, end to end; the last ends the run.
    learning_rate: The optimizers' own, which the segments' factors multiply.
    steps_per_dispatch: Iterations in one compiled call. A row is a whole number
      of dispatches, so a resumed run dispatches as the straight one does.
    ema_halflife_images: Of the moving average of G.
    ema_rampup: The half-life is at most this share of the images seen, so that
      the average soon forgets where G began (StyleGAN2-ADA). None: no such
      limit.
  """

  rows: tuple[Row, ...]
  learning_rate: Pair[float]
  steps_per_dispatch: int
  ema_halflife_images: int
  ema_rampup: float | None

  @property
  def total_steps(self) -> int:
    return self.rows[-1].end_step

  @property
  def follows_its_end(self) -> bool:
    """Whether what holds in an iteration depends on how long the run is."""
    last = self.rows[-1].segment
    curves = last.curves.values()
    return last.images is None and any(isinstance(x, tuple) for x in curves)

  def row(self, step: int) -> Row:
    """The row that `step` lies in; past the end, the last."""
    for row in self.rows:
      if step < row.end_step:
        return row
    return self.rows[-1]

  @property
  def stage_ends(self) -> list[int]:
    """The iterations before which the stage changes."""
    stages = [(row.end_step, row.segment.stage) for row in self.rows]
    return [
      end
      for (end, stage), (_, following) in itertools.pairwise(stages)
      if stage != following
    ]

  def images(self, step: int) -> int:
    """Reals shown to D before `step`."""
    row = self.row(step)
    return (
      row.first_image + (step - row.first_step) * row.segment.images_per_step
    )

  def phase(self, step: int) -> Phase:
    """What holds in `step`."""
    row = self.row(step)
    segment, done = row.segment, step - row.first_step
    share = min(done / row.curve_steps, 1.0)
    halflife = self.ema_halflife_images
    if self.ema_rampup is not None:
      halflife = min(halflife, self.ema_rampup * self.images(step))
    decay = 0.5 ** (segment.images_per_step / halflife) if halflife else 0.0
    return Phase(
      stage=segment.stage,
      disc_steps=segment.disc_steps,
      batch_size=segment.batch_size,
      gen_batch_size=segment.gen_batch_size,
      learning_rate=Pair(
        *(
          np.float32(rate * _value(factor, share))
          for rate, factor in zip(
            self.learning_rate, segment.factors.values(), strict=True
          )
        )
      ),
      ema_decay=np.float32(decay),
      disc_step=np.int32(row.first_disc_step + done * segment.disc_steps),
      values={
        k: np.float32(_value(x, share)) for k, x in segment.values.items()
      },
    )

  def signature(self, step: int) -> Any:
    """What is static in `step`: where it is the same, the program is."""
    return jax.tree.structure(self.phase(step))

  def dispatch(self, step: int) -> Phase:
    """The phases of the dispatch that begins at `step`, stacked."""
    phases = [self.phase(step + i) for i in range(self.steps_per_dispatch)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *phases)


def _value(curve: Curve, share: float) -> float | int:
  """The value of a ramp when `share` of its segment is over."""
  if not isinstance(curve, tuple):
    return curve
  shape, start, end = curve
  return start + (end - start) * SHAPES[shape](share)


def place_segments(
  segments: Sequence[Mapping[str, Any]],
  *,
  defaults: Mapping[str, Any],
  learning_rate: Pair[float],
  total_images: int | None,
  steps_per_dispatch: int,
  ema_halflife_images: int,
  ema_rampup: float | None,
) -> Table:
  """Places the segments, each over the defaults, one after the other.

  The run is cut at `total_images`; if that lies beyond the last segment, the
  run goes on as that ends; of None, it is as long as the segments are. Every
  row is rounded up to whole dispatches. What holds in an iteration does not
  depend on `total_images`, so that a run can be prolonged, unless the last
  segment has a ramp and no length of its own (`Table.follows_its_end`).

  Raises:
    UserError: A segment is wrong, or a learning rate has come to 0 before the
      end.
  """
  placed = [
    _segment(i, {**defaults, **segment}) for i, segment in enumerate(segments)
  ]
  rows = []
  step = image = disc_step = 0
  for index, segment in enumerate(placed):
    last = index == len(placed) - 1
    if segment.images is None and not (last and total_images):
      raise UserError(
        f'config.schedule[{index}] must say its images, or '
        'config.total_images where it ends'
      )
    left = segment.images if total_images is None else total_images - image
    if left <= 0:
      break
    dispatch = segment.images_per_step * steps_per_dispatch
    if dispatch > MOST_IN_DISPATCH:
      raise UserError(
        f'config.steps_per_dispatch={steps_per_dispatch}: one dispatch shows '
        f'{dispatch:,} images to D, and at most {MOST_IN_DISPATCH:,} are '
        'possible: take fewer, or a smaller batch'
      )
    whole = lambda n, per=dispatch: math.ceil(n / per) * steps_per_dispatch
    steps = whole(left if last else min(segment.images, left))
    curve_steps = whole(segment.images or left)
    rows.append(Row(segment, step, image, disc_step, steps, curve_steps))
    step += steps
    image += steps * segment.images_per_step
    disc_step += steps * segment.disc_steps
    if last and segment.images is not None and left > segment.images:
      _check_goes_on(index, segment, rows[-1].first_image + segment.images)
  if max(step, disc_step) >= 2**31:  # they are int32 on the devices
    raise UserError(
      f'config.total_images={total_images} makes {step:,} iterations: at most '
      f'{2**31 - 1:,} are possible'
    )
  return Table(
    tuple(rows),
    learning_rate,
    steps_per_dispatch,
    ema_halflife_images,
    ema_rampup,
  )


def _check_goes_on(index: int, segment: Segment, images: int) -> None:
  """Refuses to train on with a learning rate that has come to 0."""
  for name, curve in segment.factors.items():
    if _value(curve, 1.0) == 0:
      raise UserError(
        f'config.schedule[{index}]: {name} is 0 from image {images:,} on, and '
        'config.total_images lies beyond: leave its images out, and it lasts '
        'to the end of the run'
      )


def _segment(index: int, fields: Mapping[str, Any]) -> Segment:
  """A segment of the schedule, checked."""
  where = f'config.schedule[{index}]'
  valid = [field.name for field in dataclasses.fields(Segment)]
  check_keys(where, fields, valid)
  for key, bound in SIZES.items():
    value = fields.get(key, bound.low)
    if problem := bound.problem(value):
      raise UserError(f'{where}: {key}={value!r} {problem}')
  for name in FACTORS:
    _check_curve(f'{where}: {name}', fields.get(name, 1.0), positive=True)
  values = fields.get('values', {})
  if not isinstance(values, Mapping):
    raise UserError(f"{where}: values={values!r} is to be {{'NAME': RAMP}}")
  for name, curve in values.items():
    _check_curve(f'{where}: {name}', curve)
  return Segment(**fields)


def _check_curve(where: str, curve: Any, positive: bool = False) -> None:
  """Refuses what is no ramp, or is one of numbers that cannot be."""
  ends = [curve]
  if isinstance(curve, tuple):
    if len(curve) != 3 or not isinstance(curve[0], str):
      raise UserError(
        f"{where}={curve!r} is to be a number or ('linear', START, END)"
      )
    choose(f'shape of {where}', curve[0], SHAPES)
    ends = list(curve[1:])
  for end in ends:
    if isinstance(end, bool) or not isinstance(end, int | float):
      raise UserError(f'{where}={curve!r}: {end!r} is no number')
    if not math.isfinite(end):
      raise UserError(f'{where}={curve!r} must be finite')
    if positive and end < 0:
      raise UserError(f'{where}={curve!r} must be 0 or more')


def of_config(config: ConfigDict) -> Table:
  """The course of the run: `config.schedule`, over the top-level settings."""
  segments = config.get('schedule', ({},))
  if not (
    isinstance(segments, tuple)
    and segments
    and all(isinstance(segment, Mapping) for segment in segments)
  ):
    raise UserError(f'config.schedule={segments!r} is to be a tuple of dicts')
  return place_segments(
    [resolved(segment, config) for segment in segments],
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


def resolved(segment: Mapping[str, Any], config: ConfigDict) -> dict[str, Any]:
  """The segment; what it calls by a key of `growth`, as that has it."""
  known = cfg.flatten(config.to_dict().get('growth', {}), 'growth.')
  look_up = lambda key: choose('key of config.schedule', key, known)
  return {
    k: look_up(x) if isinstance(x, str) else x for k, x in segment.items()
  }
