"""The lines of `metrics.jsonl`: mean metrics and scheduled values."""

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
  """Averages metrics over the iterations since the last log record.

  Waits for the devices.

  Args:
    pending: One entry per dispatch; leaves [steps, 2]: (sum, count) of each
      iteration.
    step: The iteration after the last dispatch.
    steps_per_dispatch: Iterations per dispatch.

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
  """Raises Diverged with the first iteration and player that diverged."""
  first_bad = {
    name: int(np.argmin(np.isfinite(parts[:, 0])))
    for name, parts in stacked.items()
    if not np.isfinite(parts[:, 0]).all()
  }
  if not first_bad:
    return
  first = min(first_bad.values())
  names = sorted(name for name, at in first_bad.items() if at == first)
  # D is updated first, so its NaNs spread to G in the same iteration.
  disc = [name for name in names if name.startswith('disc/')]
  raise Diverged(
    f'{", ".join(disc or names)} not finite at iteration '
    f'{before + first + 1:,}: training has diverged; the last checkpoint is '
    'kept'
  )


def scheduled_values(
  schedule: Schedule, sizes: Sequence[str], step: int
) -> dict[str, float | int]:
  """Returns the scheduled values of iteration `step` by their log names.

  Args:
    schedule: The schedule.
    sizes: The size of the fakes in each segment, as 4x4.
    step: The iteration.
  """
  phase = schedule.phase(step)
  values = {
    'gen_learning_rate': phase.learning_rate.gen,
    'disc_learning_rate': phase.learning_rate.disc,
    **phase.values,
  }
  # The shortest decimal representation of each float32.
  line = {f'schedule/{name}': float(str(x)) for name, x in values.items()}
  if schedule.stage_ends:
    size = sizes[schedule.segments.index(schedule.segment_at(step))]
    line['schedule/stage'] = phase.stage
    line['schedule/resolution'] = int(size.partition('x')[0])
  return line
