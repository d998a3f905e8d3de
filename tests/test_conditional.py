"""Tests of the metrics of conditional samples, by hand and on digits."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from runs import get_config

from gan_jax import games
from gan_jax.data.digits import digits
from gan_jax.data.loader import fetch_all
from gan_jax.data.source import DataSpec, in_memory
from gan_jax.errors import UserError
from gan_jax.games.game import Output
from gan_jax.metrics import conditional
from gan_jax.metrics.conditional import (
  classification_accuracy,
  fid_per_class,
  label_accuracy,
)
from gan_jax.metrics.evaluator import Evaluator
from gan_jax.training.evaluations import make_evaluators
from gan_jax.training.schedule import make_schedule

COUNT = 200


def test_label_accuracy_by_hand():
  probabilities = np.array([[0.6, 0.4], [0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
  assert label_accuracy(probabilities, np.array([0, 1, 1, 0])) == 0.5
  assert label_accuracy(probabilities, np.array([0, 1, 0, 0])) == 0.75


def test_fid_per_class_by_hand():
  """FID of normal distributions on a line: (m - m')^2 + (s - s')^2."""
  column = lambda *x: np.array(x, np.float32)[:, None]
  real, fake = column(-1, 1, -1, 1), column(1, -2, 3, 2)
  # Class 0: means 0 and 2, variance 2 both. Class 1: variances 2 and 8.
  result = fid_per_class(
    real, np.array([0, 0, 1, 1]), fake, np.array([0, 1, 0, 1])
  )
  assert result.classes == pytest.approx({0: 4, 1: 2}, abs=1e-5)
  assert result.mean == pytest.approx(3, abs=1e-5)
  assert result.worst == pytest.approx(4, abs=1e-5)
  with pytest.raises(UserError, match='class 1 has 2 reals and 1 fakes'):
    fid_per_class(real, np.array([0, 0, 1, 1]), fake, np.array([0, 0, 0, 1]))


@pytest.mark.slow  # trains three classifiers
def test_classification_accuracy_of_quadrants(monkeypatch):
  """The class is the bright quadrant: right labels, shifted labels, noise."""
  monkeypatch.setattr(conditional, 'STEPS', 80)
  rng = np.random.default_rng(0)

  def draw(n):
    labels = rng.integers(0, 4, n).astype(np.int32)
    images = rng.integers(0, 60, (n, 8, 8, 1))
    for image, label in zip(images, labels, strict=True):
      row, column = divmod(label, 2)
      # Each class has its own stripes, which the mean over space keeps.
      image[4 * row : 4 * row + 4, 4 * column :: label + 2] += 180
    return images.astype(np.uint8), labels

  (images, labels), test = draw(200), draw(103)
  accuracy = lambda train_labels: classification_accuracy(
    images, train_labels, *test
  )
  assert accuracy(labels) > 0.95
  assert accuracy((labels + 1) % 4) < 0.05
  assert 0.05 < accuracy(rng.permutation(labels)) < 0.6


def conditional_digits(labels_act):
  """A game whose samples are real digits, of the requested class or of any."""
  config = get_config('cgan_digits', 'tiny')
  size = config.data.resolution
  real = fetch_all(digits(DataSpec('', size, 1)))
  first = np.array(
    [np.flatnonzero(real['labels'] == c)[:20] for c in range(10)]
  )
  images = real['images'].astype(np.float32) / 127.5 - 1

  def sample(gen_vars, inputs, phase):
    del gen_vars, phase
    which = jax.numpy.abs(inputs['z'][:, 0] * 1e4).astype('int32')
    label = inputs['labels'].argmax(-1) if labels_act else which % 7 % 10
    return jax.numpy.asarray(images)[
      jax.numpy.asarray(first)[label, which % 20]
    ]

  game = games.make(config)._replace(outputs={'images': Output(sample)})
  config.evaluation.update(
    {
      'num_samples': COUNT,
      'metrics': ('label_accuracy', 'fid_per_class', 'classification_accuracy'),
      'features': 'digits',
      'held_out': 'all',
    }
  )
  return config, game, digits(DataSpec('', size, 1))


def scores_of(labels_act, labels, *metrics):
  config, game, source = conditional_digits(labels_act)
  config.evaluation.metrics = metrics
  evaluator = Evaluator(config.evaluation, source, {}, source, labels)
  values = evaluator.make_evaluate_fn(game)({}, make_schedule(config).phase(0))
  return {k: v for x in values.values() for k, (v,) in x.items()}


def test_metrics_detect_ignored_labels():
  """FID and `classes` do not distinguish these two generators."""
  both = 'label_accuracy', 'fid_per_class'
  right = scores_of(True, 'uniform', *both)
  wrong = scores_of(False, 'uniform', *both)
  assert right['label_accuracy'] > 0.93
  assert wrong['label_accuracy'] < 0.3
  assert right['fid_per_class'] < wrong['fid_per_class'] / 2
  assert right['fid_worst_class'] >= right['fid_per_class']


@pytest.mark.slow
def test_classification_accuracy_of_digits(monkeypatch):
  """The labels are those of the data; training takes few steps."""
  monkeypatch.setattr(conditional, 'STEPS', 60)
  found = scores_of(True, 'data', 'classification_accuracy')
  assert found['classification_accuracy'] > 0.4


def test_evaluate_images_uses_their_own_labels():
  config, _, source = conditional_digits(True)
  config.evaluation.metrics = ('label_accuracy',)
  evaluator = Evaluator(config.evaluation, source, {})
  (accuracy,) = evaluator.evaluate_images(source)['label_accuracy'].values()
  assert accuracy[0] > 0.98
  unlabelled = in_memory({'images': np.zeros((4, 14, 14, 1), np.uint8)})
  with pytest.raises(UserError, match='need data with one label per image'):
    evaluator.evaluate_images(unlabelled)


def test_unsupported_data_raise():
  block = ConfigDict(
    {'metrics': ('label_accuracy',), 'features': 'digits'}
    | {'num_samples': 10, 'seeds': 1, 'held_out': None}
  )
  images = np.zeros((6, 14, 14, 1), np.uint8)
  source_of = lambda labels, names: in_memory(
    {'images': images, **labels}, names
  )
  with pytest.raises(UserError, match='need data with one label per image'):
    Evaluator(block, source_of({}, ()), {})
  three = {'labels': np.arange(6, dtype=np.int32) % 3}
  with pytest.raises(UserError, match='a classifier of the 3 classes'):
    Evaluator(block, source_of(three, ('a', 'b', 'c')), {})
  block.metrics = ('fid_per_class',)  # works with any features
  Evaluator(block, source_of(three, ('a', 'b', 'c')), {})
  config = get_config('vanilla_mnist', 'tiny')
  config.evaluation.update(
    {'metrics': ('label_accuracy',), 'features': 'digits'}
  )
  source = digits(DataSpec('', config.data.resolution, 1))
  with pytest.raises(UserError, match='need a conditional generator'):
    make_evaluators(config, source)[0].make_evaluate_fn(games.make(config))
