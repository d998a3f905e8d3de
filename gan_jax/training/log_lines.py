"""The lines of `metrics.jsonl`: means of an interval, and scheduled values."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np

from gan_jax import devices
from gan_jax.errors import Diverged
from gan_jax.training.schedule import Schedule
from gan_jax.training.step import Metrics


def mean_metrics(
  pending: list[Metrics], step: int, steps_per_dispatch: int
) -> dict[str, float]:
  """The means of metrics that are [(sum, count)] of each iteration.

  Waits for the devices.

  Raises:
    Diverged: A metric is not finite.
  """
  stacked = jax.tree.map(
    lambda *parts: np.concatenate(parts, dtype=np.float64),
    *devices.fetch(pending),
  )
  _check_finite(stacked, step - len(pending) * steps_per_dispatch)
  sums = {name: parts.sum(0) for name, parts in stacked.items()}
  return {name: float(x / count) for name, (x, count) in sums.items() if count}


def _check_finite(stacked: Mapping[str, np.ndarray], before: int) -> None:
  """Raises with the first iteration and the player that diverged."""
  first_bad = {
    name: int(np.argmin(np.isfinite(parts[:, 0])))
    for name, parts in stacked.items()
    if not np.isfinite(parts[:, 0]).all()
  }
  if not first_bad:
    return
  first = min(first_bad.values())
  names = sorted(name for name, at in first_bad.items() if at == first)
  # D is updated first: G takes over what D has spoilt.
  disc = [name for name in names if name.startswith('disc/')]
  raise Diverged(
    f'{", ".join(disc or names)} not finite at iteration '
    f'{before + first + 1:,}: the training has diverged; the last checkpoint '
    'is kept'
  )


def scheduled_values(
  schedule: Schedule, sizes: Sequence[str], step: int
) -> dict[str, float | int]:
  """The values of the schedule in iteration `step`, by their log names.

  Args:
    schedule: The schedule.
    sizes: The size that G generates in each segment.
    step: The iteration.
  """
  phase = schedule.phase(step)
  values = {
    'gen_learning_rate': phase.learning_rate.gen,
    'disc_learning_rate': phase.learning_rate.disc,
    **phase.values,
  }
  # The shortest decimal of each float32.
  line = {f'schedule/{name}': float(str(x)) for name, x in values.items()}
  if schedule.stage_ends:
    size = sizes[schedule.segments.index(schedule.segment_at(step))]
    line['schedule/stage'] = phase.stage
    line['schedule/resolution'] = int(size.partition('x')[0])
  return line
