"""Which metrics a config is measured by, and by which features."""

from typing import NamedTuple

from gan_jax import devices
from gan_jax.data.toys import Toy
from gan_jax.errors import UserError
from gan_jax.metrics import inception
from gan_jax.metrics.features import Function
from gan_jax.metrics.measure import (
  DEFAULT_METRICS,
  DEFAULT_PIXEL_METRICS,
  METRICS,
  POINT_METRICS,
)
from gan_jax.registry import choose

# A row of FEATURES, MODULE:FUNCTION, or the function itself.
Named = str | Function


class Choice(NamedTuple):
  """What is measured.

  Attributes:
    metrics: Rows of METRICS.
    features: The features they need; None: they need none.
    fell_back: Whether nothing was named, and Inception's weights are missing.
  """

  metrics: tuple[str, ...]
  features: Named | None
  fell_back: bool = False

  @property
  def scores(self) -> tuple[str, ...]:
    """All scores that the metrics give, `swd_SIDE` apart."""
    return tuple(name for row in self.metrics for name in METRICS[row].scores)


def choose_metrics(
  metrics: tuple[str, ...], features: Named | None, toy: Toy | None
) -> Choice:
  """What `config.evaluation` asks for; what it leaves open is filled in.

  Args:
    metrics: As of `config.evaluation`; empty: what is customary for the data.
    features: As of `config.evaluation`; None: Inception's, if they are needed.
    toy: Whose points are measured; None: images are.

  Raises:
    UserError: A metric is unknown, or not for this data; or Inception's weights
      are needed, and missing.
  """
  if toy is not None:
    return Choice(_of_toy(metrics, toy), None)
  fell_back = False
  if features is None and (not metrics or _need_features(metrics)):
    if devices.all_agree(inception.is_available()):
      features = 'inception'
    elif metrics:
      inception.load()  # tells what is missing
    else:
      fell_back = True
  metrics = metrics or (DEFAULT_METRICS if features else DEFAULT_PIXEL_METRICS)
  for name in metrics:
    choose('config.evaluation.metrics', name, METRICS)
    if name in POINT_METRICS and name != 'wasserstein':
      raise UserError(f'config.evaluation.metrics: {name} is of toy:... points')
  needed = features if _need_features(metrics) else None
  return Choice(metrics, needed, fell_back)


def _of_toy(metrics: tuple[str, ...], toy: Toy) -> tuple[str, ...]:
  """The metrics of a toy; where none are named, all that it has."""
  known = tuple(m for m in POINT_METRICS if m != 'modes' or len(toy.modes))
  for name in metrics:
    if name not in known:
      raise UserError(
        f'config.evaluation.metrics: {name} is no metric of these points '
        f'(valid: {", ".join(known)})'
      )
  return metrics or known


def _need_features(metrics: tuple[str, ...]) -> bool:
  known = [METRICS[name] for name in metrics if name in METRICS]
  return any(metric.needs != 'images' for metric in known)
