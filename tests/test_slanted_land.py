"""Tests that training learns the faces of Slanted Land."""

import numpy as np
import pytest
from runs import get_config

import gan_jax
from gan_jax.training.loop import train


@pytest.mark.parametrize(
  'seed', [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2))]
)
def test_samples_learn_the_diagonal(tmp_path, seed):
  """Untrained pixels have any value; trained pixels are like those of the data:
  3/4 to 1 on the diagonal and 0 to 1/4 off it, with a tolerance of 1/8.
  """
  config = get_config('toy:slanted_land')
  config.seed, config.evaluation.every_images = seed, None
  train(config, tmp_path)
  faces = gan_jax.load(tmp_path).sample(500)[..., 0] / 255
  diagonal = faces[:, [0, 1], [0, 1]]
  off = faces[:, [0, 1], [1, 0]]
  faces_right = (diagonal > 0.625).all(1) & (off < 0.375).all(1)
  assert faces_right.mean() > 0.9
  assert np.abs(diagonal.mean() - 0.875) < 0.06
  assert np.abs(off.mean() - 0.125) < 0.06
