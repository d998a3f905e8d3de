"""Tests of the labels that a conditional G gets in evaluation."""

import jax
import numpy as np
import pytest
import scipy.stats
from runs import evaluated_config, get_config

from gan_jax import games
from gan_jax.data.digits import digits
from gan_jax.data.source import DataSpec, in_memory
from gan_jax.errors import UserError
from gan_jax.games.game import Output
from gan_jax.keys import Purpose, example_keys
from gan_jax.metrics import metric_inputs, scores
from gan_jax.metrics.evaluator import Evaluator
from gan_jax.training import evaluations, loop
from gan_jax.training.schedule import make_schedule


def unbalanced():
  """Makes 100 images: 85 of one class, 12 of another, 3 of a third."""
  labels = np.repeat(np.arange(3, dtype=np.int32), [85, 12, 3])
  pixels = np.random.default_rng(0).integers(0, 256, (100, 4, 4, 1), np.uint8)
  source = in_memory({'images': pixels, 'labels': labels}, ('a', 'b', 'c'))
  return source, labels


def evaluated_labels(labels, count, monkeypatch):
  """Returns the labels that a conditional G gets, decoded from its images."""
  config = evaluated_config(num_samples=count, metrics=('swd',), features=None)
  source, _ = unbalanced()
  evaluator = Evaluator(config.evaluation, source, {}, labels=labels)

  def draw(keys, batch, phase):
    uniform = jax.vmap(lambda key: jax.random.randint(key, (), 0, 3))(keys)
    return batch.get('labels', uniform)

  def sample(gen_vars, inputs, phase):
    flat = inputs.astype('float32')[:, None, None, None] / 127.5 - 1
    return jax.numpy.broadcast_to(flat, (len(inputs), 4, 4, 1))

  collected = []

  def record(batches, needs, count, limit):
    collected.append(metric_inputs.collect(batches, needs, count, limit))
    raise StopIteration

  monkeypatch.setattr('gan_jax.metrics.evaluator.collect', record)
  game = games.make(config)._replace(
    sample_inputs=draw, outputs={'images': Output(sample)}
  )
  with pytest.raises(StopIteration):
    evaluator.make_evaluate_fn(game)({}, make_schedule(config).phase(0))
  return collected[0].images[:, 0, 0, 0]


def test_data_labels_have_the_frequencies_of_the_data(monkeypatch):
  """Passes a chi-squared test; each label is a function of (seed, example)."""
  count = 4000
  drawn = evaluated_labels('data', count, monkeypatch)
  counts = np.bincount(drawn, minlength=3)
  test = scipy.stats.chisquare(counts, count * np.array([0.85, 0.12, 0.03]))
  assert test.pvalue > 0.01
  keys = example_keys(
    jax.random.key(0), Purpose.LABELS, jax.numpy.arange(count)
  )
  index = jax.vmap(lambda key: jax.random.randint(key, (), 0, 100))(keys)
  np.testing.assert_array_equal(drawn, unbalanced()[1][np.asarray(index)])
  # Fewer examples, in other batches and on other devices, have the same labels.
  few = evaluated_labels('data', 7, monkeypatch)
  np.testing.assert_array_equal(few, drawn[:7])


def test_uniform_labels_have_equal_frequencies(monkeypatch):
  counts = np.bincount(
    evaluated_labels('uniform', 3000, monkeypatch), minlength=3
  )
  assert scipy.stats.chisquare(counts).pvalue > 0.01


def test_only_protocols_of_conditional_runs_have_labels(tmp_path, scripted):
  config = get_config('cgan_digits', 'tiny')
  config.evaluation.every_images = 16 * 24
  scripted += [2.0, 1.0]
  loop.train(config, tmp_path)
  protocols = [score.protocol['fakes'] for score in scores.read(tmp_path)]
  assert {protocol['labels'] for protocol in protocols} == {'data'}
  config.evaluation.labels = 'uniform'
  other = evaluations.make_evaluators(config, digits(DataSpec('', 28, 1)))[0]
  assert other.labels == 'uniform'
  assert (
    scores.comparison_digest(scores.read(tmp_path)[0].protocol)
    != other.comparison_digest
  )
  config.evaluation.labels = 'unifrom'
  with pytest.raises(UserError, match="did you mean 'uniform'"):
    evaluations.make_evaluators(config, digits(DataSpec('', 28, 1)))[0]
  with pytest.raises(
    UserError, match='needs a conditional generator: set it to None'
  ):
    loop.train(evaluated_config(labels='data'), tmp_path / 'other')
