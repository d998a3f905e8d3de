"""Tests of custom games, in files of the user."""

import runpy

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT
from runs import metrics

import gan_jax
from gan_jax.errors import UserError
from gan_jax.training import loop

INFO_GAN = ROOT / 'tests' / 'info_gan.py'
TRANSLATION = """
import flax.linen as nn
import jax.numpy as jnp
from gan_jax.games.game import Aux, Game, Output, Update
from gan_jax.pair import Pair


def translation(config, axis_name=None):
  '''G inverts the brightness of a real image, given to it by the data.'''
  gen, disc = nn.Dense(1), nn.Dense(1)

  def init(key, batch):
    x = batch['images']
    return Pair(gen=gen.init(key, x), disc=disc.init(key, x)), ()

  def gen_loss(params, context, batch, fakes, keys, phase):
    loss = jnp.mean((fakes + context.inputs['images']) ** 2)
    return loss, Aux({})

  def disc_loss(params, context, batch, fakes, keys, phase):
    return jnp.mean(disc.apply({'params': params}, fakes) ** 2), Aux({})

  sample = lambda gen_vars, inputs, phase: gen.apply(gen_vars, inputs['images'])
  return Game(
    init=init,
    sample_inputs=lambda keys, batch, phase: {'images': batch['images']},
    generate=lambda *args: (sample(*args), {}),
    outputs={'images': Output(sample)},
    updates=Pair(gen=(Update(gen_loss),), disc=(Update(disc_loss),)),
    reads=('images',),
  )
"""


@pytest.mark.slow  # trains until codes match classes
def test_info_gan_finds_classes_without_labels(tmp_path):
  config = runpy.run_path(str(INFO_GAN))['get_config']('tiny')
  config.batch_size, config.total_images = 64, 64 * 200
  config.log_every_steps = 20
  for player in config.optimizer.values():
    player.learning_rate = 2e-3
  loop.train(config, tmp_path)
  first, *_, last = metrics(tmp_path)
  assert first['gen/code_accuracy'] < 0.5  # 0.1 by chance
  assert last['gen/code_accuracy'] > 0.9
  assert len(INFO_GAN.read_text().splitlines()) < 120
  run = gan_jax.load(tmp_path, trust=True)
  inputs = run.inputs(4)
  assert inputs['code'].shape == (4, 10)
  assert run.sample(4).shape == (4, 28, 28, 1)


def test_generator_may_read_real_images(tmp_path, monkeypatch):
  """Training, grids, evaluation and a loaded run pass images to it."""
  (tmp_path / 'translate.py').write_text(TRANSLATION)
  monkeypatch.chdir(tmp_path)
  config = runpy.run_path(str(INFO_GAN))['get_config']('tiny')
  config.total_images = 16 * 120
  config.game = {'name': 'translate.py:translation'}
  config.evaluation.every_images = 16 * 60
  config.evaluation.num_samples = 20
  for player in config.optimizer.values():
    player.learning_rate = 0.05
  loop.train(config, tmp_path / 'run')
  _, first, *_, last = metrics(
    tmp_path / 'run'
  )  # after the line of the untrained G
  assert last['gen/loss'] < first['gen/loss'] / 10
  assert any(name.startswith('eval/') for name in last)
  run = gan_jax.load(tmp_path / 'run', trust=True)
  dark = jnp.full((3, 28, 28, 1), -1.0)
  assert np.all(run.sample(3, images=dark) > 200)
  assert run.sample(3).shape == (3, 28, 28, 1)  # translates the run's data
  with pytest.raises(UserError, match='reads images=, not labelz='):
    run.sample(3, labelz=dark)
