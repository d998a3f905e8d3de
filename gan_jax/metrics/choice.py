"""The choice of metrics and features for a config."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from gan_jax import devices
from gan_jax.data.toys import Toy
from gan_jax.errors import UserError
from gan_jax.metrics import inception
from gan_jax.metrics.features import FeatureFunction, is_custom
from gan_jax.metrics.measure import (
  DEFAULT_METRICS,
  DEFAULT_PIXEL_METRICS,
  METRICS,
  get_metric,
)
from gan_jax.registry import is_code

# A name in FEATURES, MODULE:FUNCTION, or the function itself.
FeatureSource = str | FeatureFunction


class Choice(NamedTuple):
  """The metrics and features of an evaluation.

  Attributes:
    metrics: Names in METRICS.
    features: The features that they need; None: they need none.
    fell_back: Whether the config names no metrics and features, and the weights
      of Inception are missing.
  """

  metrics: tuple[str, ...]
  features: FeatureSource | None
  fell_back: bool = False

  @property
  def scores(self) -> tuple[str, ...]:
    """The names of all scores that the metrics return, except `swd_SIDE`."""
    return tuple(
      name for row in self.metrics for name in get_metric(row).scores
    )


def choose_metrics(
  metrics: tuple[str, ...],
  features: FeatureSource | None,
  toy: Toy | None,
  paired: bool = False,
) -> Choice:
  """Chooses the metrics of `config.evaluation`, and fills in the defaults.

  Args:
    metrics: `config.evaluation.metrics`; empty: the defaults for the data.
    features: `config.evaluation.features`; None: Inception, if needed.
    toy: The toy whose points are evaluated; None: images are.
    paired: Whether each image has a target.

  Raises:
    UserError: A metric is unknown, or not for this data; or the weights of
      Inception are needed, and missing.
  """
  if toy is not None:
    return Choice(_choose_point_metrics(metrics, toy), None)
  _check_features(metrics, features)
  fell_back = False
  if features is None and (not metrics or _needs_features(metrics)):
    if devices.true_on_all(inception.FILE.is_available()):
      features = 'inception'
    elif metrics:
      inception.load()  # raises an error that says what is missing
    else:
      fell_back = True
  if not metrics:
    metrics = DEFAULT_METRICS if features else DEFAULT_PIXEL_METRICS
    rows = METRICS.items() if paired else ()
    metrics += tuple(name for name, row in rows if row.data == 'pairs')
  for name in metrics:
    data = get_metric(name).data
    if data == 'pairs' and not paired:
      raise UserError(
        f'config.evaluation.metrics: {name} compares images with their '
        'targets, and this game has none: remove it'
      )
    if data == 'points':
      raise UserError(
        f'config.evaluation.metrics: {name} is a metric of points (data.source='
        'toy:... or drawing:...), not of images: remove it'
      )
  needed = features if _needs_features(metrics) else None
  return Choice(metrics, needed, fell_back)


def _check_features(
  metrics: tuple[str, ...], features: FeatureSource | None
) -> None:
  """Raises UserError if a metric is defined for other features.

  A function of the user's is allowed: it may be the same network.
  """
  for name in metrics:
    needed = get_metric(name).features
    if needed not in (None, features) and not is_custom(features):
      raise UserError(
        f'config.evaluation.metrics: {name} is defined for the features '
        f'{needed}, not {features or "inception"}: set '
        f'--config.evaluation.features={needed}, or remove it'
      )


def _choose_point_metrics(
  metrics: tuple[str, ...], toy: Toy
) -> tuple[str, ...]:
  """Chooses the metrics of a toy; by default, all that apply to it."""
  known = tuple(
    name
    for name, metric in METRICS.items()
    if metric.data in ('points', 'any') and (name != 'modes' or len(toy.modes))
  )
  for name in metrics:
    if name not in known and not is_code(name):
      raise UserError(
        f'config.evaluation.metrics: {name} is not a metric of these points '
        f'(valid: {", ".join(known)})'
      )
  return metrics or known


def _needs_features(metrics: tuple[str, ...]) -> bool:
  """Whether a metric needs features or probabilities."""
  known = [
    get_metric(name) for name in metrics if name in METRICS or is_code(name)
  ]
  return any(metric.needs not in ('images', 'pairs') for metric in known)


def needs_of(metrics: Sequence[str], held_out: Any) -> set[str]:
  """Returns all that metrics need: `Metric.needs`, and `labels`.

  Raises:
    UserError: A metric needs held-out data, and `held_out` is None.
  """
  rows = {name: get_metric(name) for name in metrics}
  for name, row in rows.items():
    if row.needs_held_out and held_out is None:
      raise UserError(
        f'the metric {name} needs held-out data: set '
        '--config.evaluation.held_out=SPLIT'
      )
  labels = (
    {'labels'} if any(row.needs_labels for row in rows.values()) else set()
  )
  return {row.needs for row in rows.values()} | labels
