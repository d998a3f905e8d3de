"""What changes with time: a table of spans, and phase(round), pure.

Spans are given in images (reals shown to D) and turned, once, into whole
dispatches of rounds. Constant settings are the trivial table, of one span.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from gan_jax.errors import UserError, check_keys
from gan_jax.state import Pair

# float32 [] or int32 []; [rounds] where the rounds of a dispatch are stacked.
# (As any pytree's, these fields also hold what JAX puts in the leaves' place.)
Scalar = Any
# A constant, or (start, end): linear over the span.
Ramp = float | int | tuple[float | int, float | int]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Phase:
  """What holds in one round.

  The static fields are part of the compiled program: it is compiled once for
  each combination of them that the table has. The others are traced.

  Attributes:
    stage: Which layers are in play (progressive growing), up to the game.
    disc_steps: D's steps in the round.
    batch_size: Reals, and fakes, that D sees in a step, on all devices.
    gen_batch_size: Fakes that G plays for its own step; None: G moves on the
      fakes that D has just seen.
    learning_rate: Both players'; the optax transformations have none.
    ema_decay: What the moving average of G keeps, in a round.
    disc_step: D's steps before this round.
    values: What else the game wants to know that changes with time, by name:
      how far a stage has faded in, the noise that D sees images in.
  """

  stage: int = dataclasses.field(metadata={'static': True})
  disc_steps: int = dataclasses.field(metadata={'static': True})
  batch_size: int = dataclasses.field(metadata={'static': True})
  gen_batch_size: int | None = dataclasses.field(metadata={'static': True})
  learning_rate: Pair[Scalar]
  ema_decay: Scalar
  disc_step: Scalar
  values: dict[str, Scalar]


@dataclasses.dataclass(frozen=True)
class Span:
  """A stretch of training, as an experiment's `schedule` gives it.

  What a span leaves out is as at the top of the config; in place of a value it
  may have the key under which `config.growth` has it.

  Attributes:
    images: Its length in reals shown to D; None: to the end of the run.
    gen_learning_rate, disc_learning_rate: Ramps.
    values: Ramps, by name.
    The others: as in `Phase`.
  """

  disc_steps: int
  batch_size: int
  gen_batch_size: int | None
  gen_learning_rate: Ramp
  disc_learning_rate: Ramp
  images: int | None = None
  stage: int = 0
  values: Mapping[str, Ramp] = dataclasses.field(default_factory=dict)

  @property
  def images_per_round(self) -> int:
    return self.batch_size * self.disc_steps


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
    rounds_per_dispatch: Rounds in one compiled call. A row is a whole number
      of dispatches, so a resumed run dispatches as the straight one does.
    ema_halflife_images: Of the moving average of G.
    ema_rampup: The half-life is at most this share of the images seen, so that
      the average soon forgets where G began (StyleGAN2-ADA). None: no such
      limit.
  """

  rows: tuple[Row, ...]
  rounds_per_dispatch: int
  ema_halflife_images: int
  ema_rampup: float | None

  @property
  def total_rounds(self) -> int:
    return self.rows[-1].end_round

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
        gen=_ramp(span.gen_learning_rate, share),
        disc=_ramp(span.disc_learning_rate, share),
      ),
      ema_decay=np.float32(decay),
      disc_step=np.int32(row.first_disc_step + done * span.disc_steps),
      values={k: _ramp(ramp, share) for k, ramp in span.values.items()},
    )

  def signature(self, round: int) -> Any:
    """What is static in `round`: where it is the same, the program is."""
    return jax.tree.structure(self.phase(round))

  def dispatch(self, round: int) -> Phase:
    """The phases of the dispatch that begins at `round`, stacked."""
    phases = [self.phase(round + i) for i in range(self.rounds_per_dispatch)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *phases)


def _ramp(ramp: Ramp, share: float) -> np.float32:
  start, end = ramp if isinstance(ramp, tuple) else (ramp, ramp)
  return np.float32(start + (end - start) * share)


def tabulate(
  spans: Sequence[Mapping[str, Any]],
  *,
  defaults: Mapping[str, Any],
  total_images: int | None,
  rounds_per_dispatch: int,
  ema_halflife_images: int,
  ema_rampup: float | None,
) -> Table:
  """Places the spans, each over the defaults, one after the other.

  The run is cut at `total_images`; if that lies beyond the last span, the run
  goes on as that ends; of None, it is as long as the spans are. Every row is
  rounded up to whole dispatches. What holds in a round never depends on
  `total_images`: a run can be prolonged.
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
    whole = lambda n, per=dispatch: math.ceil(n / per) * rounds_per_dispatch
    rounds = whole(left if last else min(span.images, left))
    ramp_rounds = whole(span.images or left)
    rows.append(Row(span, round, image, disc_step, rounds, ramp_rounds))
    round += rounds
    image += rounds * span.images_per_round
    disc_step += rounds * span.disc_steps
  return Table(
    tuple(rows), rounds_per_dispatch, ema_halflife_images, ema_rampup
  )


def _span(index: int, fields: Mapping[str, Any]) -> Span:
  """A span of the schedule, checked."""
  where = f'config.schedule[{index}]'
  valid = [field.name for field in dataclasses.fields(Span)]
  check_keys(where, fields, valid)
  for key, value in fields.items():
    sizes = ('images', 'batch_size', 'gen_batch_size', 'disc_steps')
    if key in sizes and value is not None and not value > 0:
      raise UserError(f'{where}: {key}={value} must be positive')
  span = Span(**fields)
  rates = {
    'gen_learning_rate': span.gen_learning_rate,
    'disc_learning_rate': span.disc_learning_rate,
  }
  for name, ramp in {**rates, **span.values}.items():
    if not np.isfinite(ramp).all():
      raise UserError(f'{where}: {name}={ramp} must be finite')
    if span.images is None and isinstance(ramp, tuple):
      raise UserError(f'{where}: {name} is a ramp, and needs images=...')
  return span
