"""What changes with time: a table of spans, and phase(round), pure.

Spans are given in images (reals shown to D) and turned, once, into whole
dispatches of rounds. Constant settings are the trivial table, of one span.
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

# A constant, or (shape, start, end), a row of SHAPES: over the span.
Ramp = float | int | tuple[str, float | int, float | int]

# Images of a dispatch, whose indices are in memory at once.
MOST_IN_DISPATCH = 2**24
# Of a span: what is counted.
SIZES = {
  'batch_size': BOUNDS['batch_size'],
  'disc_steps': BOUNDS['disc_steps'],
  'gen_batch_size': BOUNDS['gen_batch_size'],
  'images': BOUNDS['total_images'],
  'stage': Bound(int, 0, 64),
}
# Of a span: what multiplies the learning rates.
FACTORS = 'gen_learning_rate_factor', 'disc_learning_rate_factor'

# (share of the span that is over, 0 to 1) -> share of the way, start to end.
SHAPES: dict[str, Callable[[float], float]] = {
  'cosine': lambda share: (1 - math.cos(math.pi * share)) / 2,
  'linear': lambda share: share,
}


@dataclasses.dataclass(frozen=True)
class Span:
  """A stretch of training, as an experiment's `schedule` gives it.

  What a span leaves out is as at the top of the config; in place of a value it
  may have the key under which `config.growth` has it.

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
  gen_learning_rate_factor: Ramp = 1.0
  disc_learning_rate_factor: Ramp = 1.0
  images: int | None = None
  stage: int = 0
  values: Mapping[str, Ramp] = dataclasses.field(default_factory=dict)

  @property
  def images_per_round(self) -> int:
    return self.batch_size * self.disc_steps

  @property
  def factors(self) -> dict[str, Ramp]:
    """The factors of the learning rates, by their field."""
    return {name: getattr(self, name) for name in FACTORS}

  @property
  def ramps(self) -> dict[str, Ramp]:
    """All that may change within the span, by name."""
    return {**self.factors, **self.values}


@dataclasses.dataclass(frozen=True)
class Row:
  """A span, placed on the axis of rounds.

  `rounds` is its length in the run, `ramp_rounds` the length that its ramps
  take: its own, wherever the run ends.
  """

  span: Span
  first_round: int
  first_image: int
  first_disc_step: int
  rounds: int
  ramp_rounds: int

  @property
  def end_round(self) -> int:
    return self.first_round + self.rounds


@dataclasses.dataclass(frozen=True)
class Table:
  """The whole course of a run.

  Attributes:
    rows: The spans, end to end; the last ends the run.
    learning_rate: The optimizers' own, which the spans' factors multiply.
    rounds_per_dispatch: Rounds in one compiled call. A row is a whole number
      of dispatches, so a resumed run dispatches as the straight one does.
    ema_halflife_images: Of the moving average of G.
    ema_rampup: The half-life is at most this share of the images seen, so that
      the average soon forgets where G began (StyleGAN2-ADA). None: no such
      limit.
  """

  rows: tuple[Row, ...]
  learning_rate: Pair[float]
  rounds_per_dispatch: int
  ema_halflife_images: int
  ema_rampup: float | None

  @property
  def total_rounds(self) -> int:
    return self.rows[-1].end_round

  @property
  def follows_its_end(self) -> bool:
    """Whether what holds in a round depends on how long the run is."""
    last = self.rows[-1].span
    ramps = last.ramps.values()
    return last.images is None and any(isinstance(x, tuple) for x in ramps)

  def row(self, round: int) -> Row:
    """The row that `round` lies in; past the end, the last."""
    for row in self.rows:
      if round < row.end_round:
        return row
    return self.rows[-1]

  @property
  def stage_ends(self) -> list[int]:
    """The rounds before which the stage changes."""
    stages = [(row.end_round, row.span.stage) for row in self.rows]
    return [
      end
      for (end, stage), (_, following) in itertools.pairwise(stages)
      if stage != following
    ]

  def images(self, round: int) -> int:
    """Reals shown to D before `round`."""
    row = self.row(round)
    return (
      row.first_image + (round - row.first_round) * row.span.images_per_round
    )

  def phase(self, round: int) -> Phase:
    """What holds in `round`."""
    row = self.row(round)
    span, done = row.span, round - row.first_round
    share = min(done / row.ramp_rounds, 1.0)
    halflife = self.ema_halflife_images
    if self.ema_rampup is not None:
      halflife = min(halflife, self.ema_rampup * self.images(round))
    decay = 0.5 ** (span.images_per_round / halflife) if halflife else 0.0
    return Phase(
      stage=span.stage,
      disc_steps=span.disc_steps,
      batch_size=span.batch_size,
      gen_batch_size=span.gen_batch_size,
      learning_rate=Pair(
        *(
          np.float32(rate * _value(factor, share))
          for rate, factor in zip(
            self.learning_rate, span.factors.values(), strict=True
          )
        )
      ),
      ema_decay=np.float32(decay),
      disc_step=np.int32(row.first_disc_step + done * span.disc_steps),
      values={k: np.float32(_value(x, share)) for k, x in span.values.items()},
    )

  def signature(self, round: int) -> Any:
    """What is static in `round`: where it is the same, the program is."""
    return jax.tree.structure(self.phase(round))

  def dispatch(self, round: int) -> Phase:
    """The phases of the dispatch that begins at `round`, stacked."""
    phases = [self.phase(round + i) for i in range(self.rounds_per_dispatch)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *phases)


def _value(ramp: Ramp, share: float) -> float | int:
  """The value of a ramp when `share` of its span is over."""
  if not isinstance(ramp, tuple):
    return ramp
  shape, start, end = ramp
  return start + (end - start) * SHAPES[shape](share)


def tabulate(
  spans: Sequence[Mapping[str, Any]],
  *,
  defaults: Mapping[str, Any],
  learning_rate: Pair[float],
  total_images: int | None,
  rounds_per_dispatch: int,
  ema_halflife_images: int,
  ema_rampup: float | None,
) -> Table:
  """Places the spans, each over the defaults, one after the other.

  The run is cut at `total_images`; if that lies beyond the last span, the run
  goes on as that ends; of None, it is as long as the spans are. Every row is
  rounded up to whole dispatches. What holds in a round does not depend on
  `total_images`, so that a run can be prolonged, unless the last span has a
  ramp and no length of its own (`Table.follows_its_end`).

  Raises:
    UserError: A span is wrong, or a learning rate has come to 0 before the end.
  """
  placed = [_span(i, {**defaults, **span}) for i, span in enumerate(spans)]
  rows = []
  round = image = disc_step = 0
  for index, span in enumerate(placed):
    last = index == len(placed) - 1
    if span.images is None and not (last and total_images):
      raise UserError(
        f'config.schedule[{index}] must say its images, or '
        'config.total_images where it ends'
      )
    left = span.images if total_images is None else total_images - image
    if left <= 0:
      break
    dispatch = span.images_per_round * rounds_per_dispatch
    if dispatch > MOST_IN_DISPATCH:
      raise UserError(
        f'config.rounds_per_dispatch={rounds_per_dispatch}: one dispatch shows '
        f'{dispatch:,} images to D, and at most {MOST_IN_DISPATCH:,} are '
        'possible: take fewer, or a smaller batch'
      )
    whole = lambda n, per=dispatch: math.ceil(n / per) * rounds_per_dispatch
    rounds = whole(left if last else min(span.images, left))
    ramp_rounds = whole(span.images or left)
    rows.append(Row(span, round, image, disc_step, rounds, ramp_rounds))
    round += rounds
    image += rounds * span.images_per_round
    disc_step += rounds * span.disc_steps
    if last and span.images is not None and left > span.images:
      _check_goes_on(index, span, rows[-1].first_image + span.images)
  if max(round, disc_step) >= 2**31:  # they are int32 on the devices
    raise UserError(
      f'config.total_images={total_images} makes {round:,} iterations: at most '
      f'{2**31 - 1:,} are possible'
    )
  return Table(
    tuple(rows),
    learning_rate,
    rounds_per_dispatch,
    ema_halflife_images,
    ema_rampup,
  )


def _check_goes_on(index: int, span: Span, images: int) -> None:
  """Refuses to train on with a learning rate that has come to 0."""
  for name, ramp in span.factors.items():
    if _value(ramp, 1.0) == 0:
      raise UserError(
        f'config.schedule[{index}]: {name} is 0 from image {images:,} on, and '
        'config.total_images lies beyond: leave its images out, and it spans '
        'the rest of the run'
      )


def _span(index: int, fields: Mapping[str, Any]) -> Span:
  """A span of the schedule, checked."""
  where = f'config.schedule[{index}]'
  valid = [field.name for field in dataclasses.fields(Span)]
  check_keys(where, fields, valid)
  for key, bound in SIZES.items():
    value = fields.get(key, bound.low)
    if problem := bound.problem(value):
      raise UserError(f'{where}: {key}={value!r} {problem}')
  for name in FACTORS:
    _check_ramp(f'{where}: {name}', fields.get(name, 1.0), positive=True)
  values = fields.get('values', {})
  if not isinstance(values, Mapping):
    raise UserError(f"{where}: values={values!r} is to be {{'NAME': RAMP}}")
  for name, ramp in values.items():
    _check_ramp(f'{where}: {name}', ramp)
  return Span(**fields)


def _check_ramp(where: str, ramp: Any, positive: bool = False) -> None:
  """Refuses what is no ramp, or is one of numbers that cannot be."""
  ends = [ramp]
  if isinstance(ramp, tuple):
    if len(ramp) != 3 or not isinstance(ramp[0], str):
      raise UserError(
        f"{where}={ramp!r} is to be a number or ('linear', START, END)"
      )
    choose(f'shape of {where}', ramp[0], SHAPES)
    ends = list(ramp[1:])
  for end in ends:
    if isinstance(end, bool) or not isinstance(end, int | float):
      raise UserError(f'{where}={ramp!r}: {end!r} is no number')
    if not math.isfinite(end):
      raise UserError(f'{where}={ramp!r} must be finite')
    if positive and end < 0:
      raise UserError(f'{where}={ramp!r} must be 0 or more')


def of_config(config: ConfigDict) -> Table:
  """The course of the run: `config.schedule`, over the top-level settings."""
  spans = config.get('schedule', ({},))
  if not (
    isinstance(spans, tuple)
    and spans
    and all(isinstance(span, Mapping) for span in spans)
  ):
    raise UserError(f'config.schedule={spans!r} is to be a tuple of dicts')
  return tabulate(
    [resolved(span, config) for span in spans],
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
    rounds_per_dispatch=config.rounds_per_dispatch,
    ema_halflife_images=config.ema_halflife_images,
    ema_rampup=config.ema_rampup,
  )


def resolved(span: Mapping[str, Any], config: ConfigDict) -> dict[str, Any]:
  """The span; what it calls by a key of `growth`, as that has it."""
  known = cfg.flatten(config.to_dict().get('growth', {}), 'growth.')
  look_up = lambda key: choose('key of config.schedule', key, known)
  return {k: look_up(x) if isinstance(x, str) else x for k, x in span.items()}
