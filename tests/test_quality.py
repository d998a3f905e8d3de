"""Tests that the first command of the README generates recognizable digits."""

import os
import subprocess

import numpy as np
import pytest
from conftest import ROOT, SHARED, launch
from sklearn.neural_network import MLPClassifier

import gan_jax
from experiments import vanilla_mnist
from gan_jax import data
from gan_jax.data.loader import fetch_all


@pytest.fixture(scope='module')
def classifier(tmp_path_factory):
  """A digit classifier that is independent of the GAN.

  Trained on all of MNIST if present (test accuracy 98%, and over 90%
  sure of 94% of the genuine test digits), else on the embedded digits.
  """
  config = vanilla_mnist.get_config()
  if SHARED.is_dir():
    config.data.source = 'mnist'
    config.data.files = str(SHARED / 'mnist')
    config.data.dir = str(tmp_path_factory.mktemp('prepared'))
  source = data.make(config)
  digits = fetch_all(source)
  pixels = digits['images'].reshape(source.size, -1) / np.float32(255)
  model = MLPClassifier((256,), alpha=1e-3, batch_size=256, max_iter=8)
  model.set_params(random_state=0)
  with pytest.warns(match='Maximum iterations'):
    return model.fit(pixels, digits['labels'])


@pytest.mark.slow
def test_vanilla_gan_generates_digits(classifier, tmp_path):
  """Of 1,000 samples, at least 9 digits have 2% each, and the classifier is
  over 90% sure of at least 70%.
  """
  flags = ('--config=experiments/vanilla_mnist.py', f'--workdir={tmp_path}')
  # As a user would, without the tests' several devices on the same cores.
  removed = ('XLA_FLAGS', 'NPROC')
  environment = {k: v for k, v in os.environ.items() if k not in removed}
  subprocess.run(launch(*flags), cwd=ROOT, check=True, env=environment)
  samples = gan_jax.load(tmp_path).sample(1000)
  pixels = samples.reshape(1000, -1) / np.float32(255)
  probabilities = classifier.predict_proba(pixels)
  shares = np.bincount(probabilities.argmax(1), minlength=10) / 1000
  assert (shares >= 0.02).sum() >= 9
  assert (probabilities.max(1) > 0.9).mean() >= 0.7
