"""Training learns: the people of Slanted Land."""

import numpy as np
import pytest
from ml_collections import ConfigDict

import gan_jax
from experiments import vanilla_mnist
from gan_jax.train import train


def get_config(seed: int) -> ConfigDict:
  config = vanilla_mnist.get_config()
  config.seed = seed
  config.data.source = 'slanted_land'
  config.data.resolution = 2
  config.game.latent_dim = 2
  config.model.gen.hidden = (32,)
  config.model.disc.hidden = (32,)
  config.model.disc.dropout = 0.0
  config.optimizer.gen.learning_rate = 2e-3
  config.optimizer.disc.learning_rate = 2e-3
  config.optimizer.gen.b1 = 0.5
  config.optimizer.disc.b1 = 0.5
  config.ema_halflife_images = 10_000
  config.rounds_per_dispatch = 100
  config.total_images = 64 * 1500
  config.log_every_steps = 500
  config.sample_every_images = config.total_images
  config.checkpoint_every_images = config.total_images
  return config


@pytest.mark.parametrize('seed', [0, 1, 2])
def test_samples_move_onto_the_diagonal(tmp_path, seed):
  """Untrained, a pixel is anywhere; trained, it is where the people's are:
  3/4 to 1 on the diagonal and 0 to 1/4 off it, give or take 1/8.
  """
  train(get_config(seed), tmp_path)
  faces = gan_jax.load(tmp_path).sample(500)[..., 0] / 255
  diagonal = faces[:, [0, 1], [0, 1]]
  off = faces[:, [0, 1], [1, 0]]
  faces_right = (diagonal > 0.625).all(1) & (off < 0.375).all(1)
  assert faces_right.mean() > 0.9
  assert np.abs(diagonal.mean() - 0.875) < 0.06
  assert np.abs(off.mean() - 0.125) < 0.06
