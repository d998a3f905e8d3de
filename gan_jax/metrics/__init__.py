"""Metrics of samples: pure functions of features, labels or uint8 images.

This folder owns the metrics, the feature networks, the evaluator that applies
them to generators, and the scores of runs. It may import data, games and the
layers below them, and never training, runs, modes or sweep.
"""

from gan_jax.metrics.classes import (
  ClassCoverage,
  InceptionScore,
  class_coverage,
  inception_score,
)
from gan_jax.metrics.conditional import (
  ClassFids,
  classification_accuracy,
  fid_per_class,
  label_accuracy,
)
from gan_jax.metrics.frechet import fid
from gan_jax.metrics.kernel import Kid, cmmd, kid
from gan_jax.metrics.moments import Moments, merge, moments
from gan_jax.metrics.neighbors import (
  DensityCoverage,
  Memorisation,
  Neighbors,
  PrecisionRecall,
  density_coverage,
  memorisation,
  nearest_neighbors,
  precision_recall,
)
from gan_jax.metrics.pyramids import SlicedWasserstein, sliced_wasserstein
from gan_jax.metrics.similarity import ms_ssim

__all__ = [
  'ClassCoverage',
  'ClassFids',
  'DensityCoverage',
  'InceptionScore',
  'Kid',
  'Memorisation',
  'Moments',
  'Neighbors',
  'PrecisionRecall',
  'SlicedWasserstein',
  'class_coverage',
  'classification_accuracy',
  'cmmd',
  'density_coverage',
  'fid',
  'fid_per_class',
  'inception_score',
  'kid',
  'label_accuracy',
  'memorisation',
  'merge',
  'moments',
  'ms_ssim',
  'nearest_neighbors',
  'precision_recall',
  'sliced_wasserstein',
]
