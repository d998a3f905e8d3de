"""What is measured of a generator: a metric by name is a row in METRICS."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from gan_jax.data.toys import Toy
from gan_jax.metrics import points
from gan_jax.metrics.classes import class_coverage, inception_score
from gan_jax.metrics.frechet import fid
from gan_jax.metrics.kernel import kid
from gan_jax.metrics.moments import Moments, merge, moments
from gan_jax.metrics.neighbors import (
  density_coverage,
  memorisation,
  precision_recall,
)
from gan_jax.metrics.pyramids import sliced_wasserstein
from gan_jax.metrics.similarity import ms_ssim

KID_SUBSET = 1000


class MetricInputs(NamedTuple):
  """What was seen of a set of images; None: no metric asked for it.

  Attributes:
    count: Of the images.
    moments: Of the features of all.
    features: Of the first ones; of all, where a metric asks for that.
    images: The first ones; uint8, or a toy's points.
    probabilities: Of the classes, of all.
  """

  count: int
  moments: Moments | None = None
  features: Float[np.ndarray, 'm d'] | None = None
  images: Shaped[np.ndarray, 'm h w c'] | None = None
  probabilities: Float[np.ndarray, 'n k'] | None = None


class Reference(NamedTuple):
  """What fakes are compared with: the data, and what was held out of it.

  Of a toy also the distribution that it is drawn from.
  """

  real: MetricInputs
  held_out: MetricInputs | None
  toy: Toy | None = None


class Metric(NamedTuple):
  """A row of the table.

  Attributes:
    needs: What of `MetricInputs`.
    scores: Names of its scores; the first tells how good a generator is.
    of: (reference, fake) -> its scores.
    version: Raised by one whenever the numbers change on purpose: scores of two
      versions are not comparable. Part of every stamp.
  """

  needs: str
  scores: tuple[str, ...]
  of: Callable[[Reference, MetricInputs], dict[str, float]]
  version: int = 1

  @property
  def main(self) -> str:
    return self.scores[0]


def _as_many(
  reference: Reference, fake: MetricInputs
) -> tuple[Float[np.ndarray, 'n d'], Float[np.ndarray, 'm d']]:
  """The features of as many reals as there are fakes, and of those."""
  return reference.real.features[: len(fake.features)], fake.features


def _fid(reference: Reference, fake: MetricInputs) -> dict[str, float]:
  return {'fid': fid(reference.real.moments, fake.moments)}


def _kid(reference: Reference, fake: MetricInputs) -> dict[str, float]:
  sets = _as_many(reference, fake)
  size = min(KID_SUBSET, *map(len, sets))
  return {'kid': kid(*sets, subset_size=size).mean}


def _inception_score(
  reference: Reference, fake: MetricInputs
) -> dict[str, float]:
  del reference
  return {'inception_score': inception_score(fake.probabilities).mean}


def _precision_recall(
  reference: Reference, fake: MetricInputs
) -> dict[str, float]:
  return precision_recall(*_as_many(reference, fake))._asdict()


def _density_coverage(
  reference: Reference, fake: MetricInputs
) -> dict[str, float]:
  return density_coverage(*_as_many(reference, fake))._asdict()


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
  real, made = reference.real.probabilities, fake.probabilities
  seen = class_coverage(real.argmax(1), made.argmax(1), made.shape[1])
  return {'classes_kl': seen.kl, 'classes_covered': seen.covered}


def _memorisation(reference: Reference, fake: MetricInputs) -> dict[str, float]:
  copied = memorisation(
    reference.real.features, reference.held_out.features, fake.features
  )
  return {'memorisation': copied.closer}


def _points(
  reference: Reference, fake: MetricInputs
) -> tuple[np.ndarray, np.ndarray]:
  """The reals, and the fakes: [n, d] each, images as points in [-1, 1]."""
  sets = []
  for seen in (reference.real, fake):
    flat = seen.images.reshape(len(seen.images), -1)
    if flat.dtype == np.uint8:
      flat = flat / np.float32(127.5) - 1
    sets.append(flat)
  return sets[0], sets[1]


def _modes(reference: Reference, fake: MetricInputs) -> dict[str, float]:
  toy = reference.toy
  _, made = _points(reference, fake)
  seen = points.modes(made, toy.modes, toy.std)
  return {'high_quality': seen.high_quality, 'modes_found': seen.found}


def _divergence(reference: Reference, fake: MetricInputs) -> dict[str, float]:
  seen = points.divergence(*_points(reference, fake), reference.toy.limit)
  return seen._asdict()


def _wasserstein(reference: Reference, fake: MetricInputs) -> dict[str, float]:
  return {'wasserstein': points.wasserstein(*_points(reference, fake))}


METRICS: dict[str, Metric] = {
  'classes': Metric(
    'probabilities', ('classes_kl', 'classes_covered'), _classes
  ),
  'density_coverage': Metric(
    'features', ('coverage', 'density'), _density_coverage
  ),
  'divergence': Metric('images', ('jensen_shannon', 'kl'), _divergence),
  'fid': Metric('moments', ('fid',), _fid),
  'inception_score': Metric(
    'probabilities', ('inception_score',), _inception_score
  ),
  'kid': Metric('features', ('kid',), _kid),
  'memorisation': Metric('all_features', ('memorisation',), _memorisation),
  'modes': Metric('images', ('high_quality', 'modes_found'), _modes),
  'ms_ssim': Metric('images', ('ms_ssim',), _ms_ssim),
  'precision_recall': Metric(
    'features', ('precision', 'recall'), _precision_recall
  ),
  'swd': Metric('images', ('swd',), _swd),  # and swd_SIDE of each level
  'wasserstein': Metric('images', ('wasserstein',), _wasserstein),
}
# Of points, and of points that have modes, alone.
POINT_METRICS = ('divergence', 'modes', 'wasserstein')
# Scores of which the higher value is the better.
HIGHER_IS_BETTER = frozenset(
  {
    'classes_covered',
    'coverage',
    'density',
    'high_quality',
    'inception_score',
    'modes_found',
    'precision',
    'recall',
  }
)
# Scores that rank nobody: G is to be as the data is, or as unseen data.
UNRANKED = frozenset({'memorisation', 'ms_ssim'})
# Of a run that names none: with a network, and without.
DEFAULT_METRICS = ('fid', 'kid', 'precision_recall')
DEFAULT_PIXEL_METRICS = ('swd', 'ms_ssim')


def collect(
  batches: Iterable[dict[str, np.ndarray]],
  needs: set[str],
  count: int,
  most: int,
) -> MetricInputs:
  """Sees `count` images, of batches of what was made of them.

  Moments are added up batch by batch: so many features never lie in memory.

  Args:
    batches: Of 'features', 'probabilities', 'images', as `needs` asks; the
      last may have more than are left.
    needs: Of the metrics.
    count: How many images there are.
    most: Features and images are kept of so many, the first.
  """
  total, left = None, count
  kept: dict[str, list[np.ndarray]] = {}
  room = {'probabilities': count, 'features': most, 'images': most}
  if 'all_features' in needs:
    needs, room['features'] = needs | {'features'}, count
  for batch in batches:
    batch = {name: rows[:left] for name, rows in batch.items()}
    left -= len(next(iter(batch.values())))
    if 'moments' in needs:
      part = moments(batch['features'])
      total = part if total is None else merge(total, part)
    for name in needs & batch.keys():
      rows = batch[name][: room[name]]
      room[name] -= len(rows)
      kept.setdefault(name, []).append(rows)
  joined = {name: np.concatenate(parts) for name, parts in kept.items()}
  return MetricInputs(count, total, **joined)
