"""The table of metrics: each metric is a row in METRICS."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from gan_jax.data.toys import Toy
from gan_jax.metrics import paired, path_length, points
from gan_jax.metrics.classes import class_coverage, inception_score
from gan_jax.metrics.conditional import (
  classification_accuracy,
  fid_per_class,
  label_accuracy,
)
from gan_jax.metrics.frechet import fid
from gan_jax.metrics.kernel import cmmd, kid
from gan_jax.metrics.metric_inputs import MetricInputs
from gan_jax.metrics.neighbors import (
  density_coverage,
  memorisation,
  precision_recall,
)
from gan_jax.metrics.pyramids import sliced_wasserstein
from gan_jax.metrics.similarity import ms_ssim
from gan_jax.registry import choose_or_import

KID_SUBSET = 1000


class Reference(NamedTuple):
  """The reference of a comparison: the data, and the held-out data.

  For a toy, also its distribution.
  """

  real: MetricInputs
  held_out: MetricInputs | None
  toy: Toy | None = None


class Metric(NamedTuple):
  """A row of METRICS.

  Attributes:
    needs: The required field of `MetricInputs`, or `all_features`; or `pairs`,
      the images with what they were made from and their targets; or a key of
      path_length.PATHS.
    scores: The names of its scores; the first one is the main score.
    compute: (reference, fake) -> its scores.
    higher_is_better: The scores that improve as they rise; the others improve
      as they fall.
    ranks: Whether its main score ranks generators. It does not if its best
      value is that of the data, or of unseen data.
    needs_held_out: Whether it needs `Reference.held_out`.
    needs_labels: Whether it needs `MetricInputs.labels`: it is a metric of
      conditional generators.
    features: The row of FEATURES that defines it; None: it has a meaning for
      any features.
    data: What it measures: `images`, `points` of a toy, `any`, or `pairs` of
      images and their targets.
    version: Raise it by one when the numbers change on purpose: scores of
      different versions are not comparable. Part of the protocol.
  """

  needs: str
  scores: tuple[str, ...]
  compute: Callable[[Reference, MetricInputs], dict[str, float]]
  higher_is_better: tuple[str, ...] = ()
  ranks: bool = True
  needs_held_out: bool = False
  needs_labels: bool = False
  features: str | None = None
  data: str = 'images'
  version: int = 1

  @property
  def main(self) -> str:
    """The name of the main score."""
    return self.scores[0]

  def best(self, score: str) -> str | None:
    """Which value of a score is the best; see `Score.best`."""
    if not self.ranks:
      return None
    return 'highest' if score in self.higher_is_better else 'lowest'


def _match_sizes(
  reference: Reference, fake: MetricInputs
) -> tuple[Float[np.ndarray, 'n d'], Float[np.ndarray, 'm d']]:
  """Returns the features of the reals and the fakes, at most as many reals."""
  return reference.real.features[: len(fake.features)], fake.features


def _fid(reference: Reference, fake: MetricInputs) -> dict[str, float]:
  return {'fid': fid(reference.real.moments, fake.moments)}


def _kid(reference: Reference, fake: MetricInputs) -> dict[str, float]:
  sets = _match_sizes(reference, fake)
  size = min(KID_SUBSET, *map(len, sets))
  return {'kid': kid(*sets, subset_size=size).mean}


def _cmmd(reference: Reference, fake: MetricInputs) -> dict[str, float]:
  return {'cmmd': cmmd(reference.real.features, fake.features)}


def _inception_score(
  reference: Reference, fake: MetricInputs
) -> dict[str, float]:
  del reference
  return {'inception_score': inception_score(fake.probabilities).mean}


def _precision_recall(
  reference: Reference, fake: MetricInputs
) -> dict[str, float]:
  return precision_recall(*_match_sizes(reference, fake))._asdict()


def _density_coverage(
  reference: Reference, fake: MetricInputs
) -> dict[str, float]:
  return density_coverage(*_match_sizes(reference, fake))._asdict()


def _swd(reference: Reference, fake: MetricInputs) -> dict[str, float]:
  sets = reference.real.images, fake.images
  count = min(map(len, sets))
  distance = sliced_wasserstein(*(images[:count] for images in sets))
  levels = {f'swd_{side}': value for side, value in distance.levels.items()}
  return {'swd': distance.mean, **levels}


def _ms_ssim(reference: Reference, fake: MetricInputs) -> dict[str, float]:
  del reference
  return {'ms_ssim': ms_ssim(fake.images)}


def _classes(reference: Reference, fake: MetricInputs) -> dict[str, float]:
  real, fakes = reference.real.probabilities, fake.probabilities
  result = class_coverage(real.argmax(1), fakes.argmax(1), fakes.shape[1])
  return {'classes_kl': result.kl, 'classes_covered': result.covered}


def _label_accuracy(
  reference: Reference, fake: MetricInputs
) -> dict[str, float]:
  del reference
  return {'label_accuracy': label_accuracy(fake.probabilities, fake.labels)}


def _fid_per_class(
  reference: Reference, fake: MetricInputs
) -> dict[str, float]:
  real = reference.real
  result = fid_per_class(real.features, real.labels, fake.features, fake.labels)
  return {'fid_per_class': result.mean, 'fid_worst_class': result.worst}


def _classification_accuracy(
  reference: Reference, fake: MetricInputs
) -> dict[str, float]:
  test = reference.held_out
  count = len(test.images)
  accuracy = classification_accuracy(
    fake.images, fake.labels, test.images, test.labels[:count]
  )
  return {'classification_accuracy': accuracy}


def _memorisation(reference: Reference, fake: MetricInputs) -> dict[str, float]:
  result = memorisation(
    reference.real.features, reference.held_out.features, fake.features
  )
  return {'memorisation': result.closer}


def _points(
  reference: Reference, fake: MetricInputs
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the reals and the fakes as points [n, d] in [-1, 1]."""
  sets = []
  for inputs in (reference.real, fake):
    flat = inputs.images.reshape(len(inputs.images), -1)
    if flat.dtype == np.uint8:
      flat = flat / np.float32(127.5) - 1
    sets.append(flat)
  return sets[0], sets[1]


def _modes(reference: Reference, fake: MetricInputs) -> dict[str, float]:
  toy = reference.toy
  _, fakes = _points(reference, fake)
  result = points.modes(fakes, toy.modes, toy.std)
  return {'high_quality': result.high_quality, 'modes_found': result.found}


def _divergence(reference: Reference, fake: MetricInputs) -> dict[str, float]:
  result = points.divergence(*_points(reference, fake), reference.toy.limit)
  return result._asdict()


def _wasserstein(reference: Reference, fake: MetricInputs) -> dict[str, float]:
  return {'wasserstein': points.wasserstein(*_points(reference, fake))}


def _psnr(reference: Reference, fake: MetricInputs) -> dict[str, float]:
  del reference
  border, given = _border_and_resized(fake)
  score = lambda images: paired.mean_psnr(images, fake.targets, border)
  psnr = score(fake.images)
  return {'psnr': psnr, 'psnr_gain': psnr - score(given)}


def _ssim(reference: Reference, fake: MetricInputs) -> dict[str, float]:
  del reference
  border, _ = _border_and_resized(fake)
  values = paired.ssim(fake.images, fake.targets, border)
  return {'ssim': float(values.mean())}


def _path_length(name: str) -> Metric:
  def compute(reference: Reference, fake: MetricInputs) -> dict[str, float]:
    del reference
    return {name: path_length.mean_length(fake.lengths[name])}

  return Metric(name, (name,), compute)


def _border_and_resized(
  fake: MetricInputs,
) -> tuple[int, Shaped[np.ndarray, 'm h w c']]:
  """Returns the border of PSNR and SSIM, and the given images at full size.

  The border is the factor of super-resolution, and 0 without it.
  """
  scale = fake.images.shape[1] // fake.given.shape[1]
  if scale == 1:
    return 0, fake.given
  return scale, paired.resize(fake.given, scale)


METRICS: dict[str, Metric] = {
  'classes': Metric(
    'probabilities',
    ('classes_kl', 'classes_covered'),
    _classes,
    higher_is_better=('classes_covered',),
  ),
  'classification_accuracy': Metric(
    'images',
    ('classification_accuracy',),
    _classification_accuracy,
    higher_is_better=('classification_accuracy',),
    needs_held_out=True,
    needs_labels=True,
  ),
  'cmmd': Metric('all_features', ('cmmd',), _cmmd, features='clip'),
  'density_coverage': Metric(
    'features',
    ('coverage', 'density'),
    _density_coverage,
    higher_is_better=('coverage', 'density'),
  ),
  'divergence': Metric(
    'images', ('jensen_shannon', 'kl'), _divergence, data='points'
  ),
  'fid': Metric('moments', ('fid',), _fid),
  'fid_per_class': Metric(
    'all_features',
    ('fid_per_class', 'fid_worst_class'),
    _fid_per_class,
    needs_labels=True,
  ),
  'inception_score': Metric(
    'probabilities',
    ('inception_score',),
    _inception_score,
    higher_is_better=('inception_score',),
  ),
  'kid': Metric('features', ('kid',), _kid),
  'label_accuracy': Metric(
    'probabilities',
    ('label_accuracy',),
    _label_accuracy,
    higher_is_better=('label_accuracy',),
    needs_labels=True,
  ),
  'memorisation': Metric(
    'all_features',
    ('memorisation',),
    _memorisation,
    ranks=False,
    needs_held_out=True,
  ),
  'modes': Metric(
    'images',
    ('high_quality', 'modes_found'),
    _modes,
    higher_is_better=('high_quality', 'modes_found'),
    data='points',
  ),
  'ms_ssim': Metric('images', ('ms_ssim',), _ms_ssim, ranks=False),
  **{name: _path_length(name) for name in path_length.PATHS},
  'precision_recall': Metric(
    'features',
    ('precision', 'recall'),
    _precision_recall,
    higher_is_better=('precision', 'recall'),
  ),
  'psnr': Metric(
    'pairs',
    ('psnr', 'psnr_gain'),
    _psnr,
    higher_is_better=('psnr', 'psnr_gain'),
    data='pairs',
  ),
  'ssim': Metric(
    'pairs', ('ssim',), _ssim, higher_is_better=('ssim',), data='pairs'
  ),
  'swd': Metric('images', ('swd',), _swd),  # and swd_SIDE of each level
  'wasserstein': Metric('images', ('wasserstein',), _wasserstein, data='any'),
}
# The default metrics of images: with a feature network, and without one.
DEFAULT_METRICS = ('fid', 'kid', 'precision_recall')
DEFAULT_PIXEL_METRICS = ('swd', 'ms_ssim')


def get_metric(name: str) -> Metric:
  """The row of METRICS of that name, or the user's own, FILE.py:NAME."""
  return choose_or_import('config.evaluation.metrics', name, METRICS)
