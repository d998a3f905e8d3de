"""Tests of D's density ratio against known densities."""

import numpy as np
import pytest
from runs import get_config, untrained_run

import gan_jax
from experiments import toy
from gan_jax.errors import UserError
from gan_jax.runs.ratio import auroc


def test_auroc_by_counting():
  a, b = np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0])
  # Of 6 pairs: 1>0, 2>0, 3>0, 3>2; a tie 2=2; and 1<2.
  assert auroc(a, b) == pytest.approx(4.5 / 6)
  assert auroc(b, a) == pytest.approx(1.5 / 6)
  assert auroc(a, a) == 0.5


@pytest.fixture(scope='module')
def gaussians(tmp_path_factory):
  """A run whose D separates N(1, 0.5^2) from a fixed G, w z + b: N(b, w^2)."""
  config = toy.get_config('gaussian,tiny')
  config.model.gen.hidden = ()
  config.model.disc.hidden = (64, 64)
  config.game.penalties = {}
  config.optimizer.gen.learning_rate = 1e-12
  config.optimizer.disc.learning_rate = 3e-3
  config.batch_size, config.steps_per_dispatch = 256, 50
  config.total_images = 256 * 1500
  config.schedule = ({'disc_learning_rate_factor': ('linear', 1.0, 0.0)},)
  config.log_every_steps = 500
  config.checkpoint_every_images = config.sample_every_images = 2**30
  return gan_jax.train(config, tmp_path_factory.mktemp('gaussians') / 'run')


def known_ratio(run, x):
  layer = run.params['params']['Dense_0']
  w, b = abs(float(layer['kernel'][0, 0])), float(layer['bias'][0])
  log_normal = lambda mean, std: -((x - mean) ** 2) / (2 * std**2) - np.log(std)
  return log_normal(1.0, 0.5) - log_normal(b, w)


@pytest.mark.slow  # trains D to its optimum
def test_more_likely_equals_the_known_ratio(gaussians):
  """90% of the ratios have an error below 0.25."""
  rng = np.random.default_rng(0)
  real = rng.normal(1.0, 0.5, (500, 1)).astype(np.float32)
  fake = gaussians.sample(500, seed=3)
  found = gaussians.more_likely(real, fake)
  for points, ratios in ((real, found.a), (fake, found.b)):
    expected = known_ratio(gaussians, points[:, 0])
    error = np.quantile(np.abs(ratios - expected), 0.9)
    assert error < 0.25, error
  truth = auroc(
    known_ratio(gaussians, real[:, 0]), known_ratio(gaussians, fake[:, 0])
  )
  assert found.probability == pytest.approx(truth, abs=0.02)
  assert 'a is more likely than b with probability' in repr(found)


@pytest.mark.slow
def test_trained_discriminator_is_calibrated(gaussians):
  rng = np.random.default_rng(1)
  real = rng.normal(1.0, 0.5, (5000, 1)).astype(np.float32)
  good = gaussians.calibration(real)
  assert good.error < 0.03
  assert good.count.sum() == 10_000
  wrong = gaussians.calibration(real - 1)  # reals that D never saw
  assert wrong.error > 0.1


def test_calibration_by_hand(monkeypatch):
  """D(x) is 0.25, 0.75, 0.75 of reals, and 0.25, 0.25, 0.75 of fakes."""
  run = untrained_run(get_config('toy:gaussian', 'tiny'), monkeypatch)
  quarter = np.log(1 / 3)
  logits = iter(
    [
      np.array([quarter, -quarter, -quarter], np.float32),
      np.array([quarter, quarter, -quarter], np.float32),
    ]
  )
  monkeypatch.setattr(run, 'discriminator', lambda *_: next(logits))
  found = run.calibration(np.zeros((3, 1), np.float32), bins=2)
  np.testing.assert_allclose(found.probability, [0.25, 0.75], atol=1e-6)
  np.testing.assert_allclose(found.frequency, [1 / 3, 2 / 3])
  assert found.error == pytest.approx(1 / 12)


def test_invalid_comparisons_raise(monkeypatch):
  run = untrained_run(get_config('vanilla_mnist', 'tiny'), monkeypatch)
  images = run.sample(2)
  with pytest.raises(UserError, match=r'b of run\.more_likely is empty'):
    run.more_likely(images, images[:0])
  with pytest.raises(UserError, match=r'takes \[n, 28, 28, 1\]'):
    run.more_likely(images, images[:, :20])
  with pytest.raises(UserError, match='bins=0 must be 1 or more'):
    run.calibration(images, bins=0)
  run.config.game.loss = {'name': 'wasserstein'}
  with pytest.raises(UserError, match="the loss 'wasserstein' has no probab"):
    run.more_likely(images, images)
