"""Tests of runs that start from weights of other runs or published files."""

import json
import shutil
import subprocess

import jax
import jax.numpy as jnp
import network_pkls as pkls
import numpy as np
import optax
import pytest
import r3gan_reference as reference
from conftest import launch
from runs import get_config, metrics, state_arrays

from gan_jax import config as cfg
from gan_jax import games
from gan_jax.errors import UserError
from gan_jax.pair import Pair
from gan_jax.training import checkpoint, initial, loop
from gan_jax.training import state as states

DISPATCH = 4 * 16  # images


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  """The workdir of a run of 600 iterations with another seed."""
  workdir = tmp_path_factory.mktemp('source')
  config = get_config('vanilla_mnist', 'tiny')
  config.seed = 5
  config.total_images = 16 * 600
  config.checkpoint_every_images = config.sample_every_images = 16 * 600
  loop.train(config, workdir)
  return workdir


def tiny(source, **changes):
  config = get_config('vanilla_mnist', 'tiny')
  config.init.source = str(source)
  for key, value in changes.items():
    config = cfg.changed(config, key.replace('__', '.'), value)
  return config


def almost_frozen(**changes):
  """Returns overrides for one dispatch that hardly changes the weights."""
  rates = {f'optimizer__{p}__learning_rate': 1e-12 for p in ('gen', 'disc')}
  return {'total_images': DISPATCH, **rates, **changes}


def arrays(workdir, *names):
  step = checkpoint.steps(workdir)[-1]
  tree = checkpoint.read(workdir, names or ('variables', 'ema'), step)
  return jax.tree.map(np.asarray, tree)


def assert_close(one, other):
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, atol=1e-7), one, other
  )


def test_init_takes_the_weights_of_another_run(source, tmp_path, capsys):
  """Both players and the EMA. The first loss is close to the last loss of the
  source, not to that of a new run.
  """
  loop.train(tiny(source, **almost_frozen()), tmp_path / 'a')
  printed = capsys.readouterr().out
  assert f'Init:     {source}, 4 of 4 arrays of gen, 4 of 4 arrays of disc' in (
    printed
  )
  source_arrays, new_arrays = arrays(source), arrays(tmp_path / 'a')
  assert_close(new_arrays['variables'], source_arrays['variables'])
  config = get_config('vanilla_mnist', 'tiny')
  for key, value in almost_frozen().items():
    config = cfg.changed(config, key.replace('__', '.'), value)
  loop.train(config, tmp_path / 'fresh')
  last = metrics(source)[-1]['disc/loss']
  first, fresh = (
    metrics(tmp_path / name)[-1]['disc/loss'] for name in ('a', 'fresh')
  )
  assert abs(first - last) < abs(fresh - last) / 3
  saved = json.loads((tmp_path / 'a' / 'config.json').read_text())['init']
  assert saved['source'] == str(source)
  assert saved['players'] == ['gen', 'disc']
  assert len(saved['digest']) == 16


def test_resume_does_not_read_the_source_again(source, tmp_path):
  """The source is deleted before the resume, and the run equals a straight run
  bit for bit.
  """
  copy = tmp_path / 'copy'
  shutil.copytree(source, copy)
  config = tiny(copy)
  loop.train(config, tmp_path / 'straight')
  loop.train(cfg.changed(config, 'total_images', 16 * 12), tmp_path / 'b')
  shutil.rmtree(copy)
  loop.train(config, tmp_path / 'b')
  end = checkpoint.steps(tmp_path / 'b')[-1]
  assert state_arrays(tmp_path / 'b', end) == state_arrays(
    tmp_path / 'straight', end
  )
  with pytest.raises(UserError, match=r'holds another run.*init.players'):
    loop.train(cfg.changed(config, 'init.players', ('gen',)), tmp_path / 'b')
  with pytest.raises(UserError, match='neither a run with a checkpoint nor'):
    loop.train(config, tmp_path / 'new')


def test_arrays_that_do_not_fit_are_listed(source, tmp_path, capsys):
  config = tiny(source, **almost_frozen(), model__gen__hidden=(32, 16))
  loop.train(config, tmp_path / 'a')
  printed = capsys.readouterr().out
  assert '1 of 6 arrays of gen, 4 of 4 arrays of disc' in printed or (
    '2 of 6 arrays of gen, 4 of 4 arrays of disc' in printed
  )
  assert 'not taken, and therefore random:' in printed
  assert '  gen/Dense_2/kernel: (16, 784) here, none there' in printed
  assert '  gen/Dense_1/kernel: (32, 16) here, (32, 784) there' in printed
  with pytest.raises(UserError, match='no array that fits gen'):
    other = tiny(source, **almost_frozen(), model__gen__hidden=(48,))
    other.game.latent_dim = 7
    other.data.resolution = 16
    loop.train(other, tmp_path / 'b')


def test_init_players_selects_one_player(source, tmp_path):
  config = tiny(source, **almost_frozen(), init__players=('disc',))
  loop.train(config, tmp_path / 'a')
  source_arrays, new_arrays = arrays(source), arrays(tmp_path / 'a')
  assert_close(
    new_arrays['variables']['disc'], source_arrays['variables']['disc']
  )
  kernel = lambda tree: tree['variables']['gen']['params']['Dense_0']['kernel']
  assert abs(kernel(new_arrays) - kernel(source_arrays)).max() > 1e-3


def test_freeze_disc_keeps_the_layers_nearest_to_the_images(source, tmp_path):
  """The other layers are trained."""
  config = get_config('vanilla_mnist', 'tiny')
  config.init.source = str(source)
  config.game.freeze_disc = 1
  loop.train(config, tmp_path / 'a')
  source_arrays, new_arrays = (
    arrays(path, 'variables')['variables']['disc']['params']
    for path in (source, tmp_path / 'a')
  )
  first, last = sorted(new_arrays)
  assert (new_arrays[first]['kernel'] == source_arrays[first]['kernel']).all()
  assert (new_arrays[last]['kernel'] != source_arrays[last]['kernel']).any()
  config.game.freeze_disc = 2
  with pytest.raises(UserError, match=r'less than 2, the number of layers'):
    games.make(config)


def test_freeze_disc_counts_layers_from_the_images_on():
  config = get_config('r3gan', 'tiny')
  config.game.freeze_disc = 3
  game = games.make(config)
  names = ('basis', 'block_4_0', 'block_8_0', 'embed', 'from_image', 'project')
  params = Pair({'x': 0}, dict.fromkeys(names, 0))
  flags = game.trainable(params, None).disc
  assert [name for name in names if not flags[name]] == [
    'block_4_0', 'block_8_0', 'from_image'
  ]  # fmt: skip


def test_published_file_initializes_all_but_the_embeddings(tmp_path, capsys):
  """A file of R3GAN with another number of classes."""
  shapes = {'widths': (8, 8), 'groups': (2, 2)}
  gen = reference.arrays(reference.gen_shapes(3, z=64, **shapes), np.float32)
  disc = reference.arrays(reference.disc_shapes(3, **shapes), np.float32)
  path = pkls.write(tmp_path / 'a.pkl', pkls.by_name, G=gen, D=disc, G_ema=gen)
  from gan_jax.training import initial

  config = get_config('r3gan', 'tiny')
  for player in ('gen', 'disc'):
    config.model[player].num_blocks = 2
  game = games.make(config)
  batch = {
    'images': jax.numpy.zeros((2, 8, 8, 3)),
    'labels': jax.numpy.zeros(2, int),
  }
  variables, _ = jax.jit(game.init)(jax.random.key(0), batch)
  state = initial.State(0, 0, 0, None, variables, None, variables.gen, None)
  state, lines = initial.initialize(state, initial.read(str(path)))
  kernel = state.ema['params']['to_image']['kernel']
  expected = gen['Model.AggregationLayer.Layer.weight'].transpose(2, 3, 1, 0)
  np.testing.assert_array_equal(kernel, expected)
  assert lines[1:] == [
    '          not taken, and therefore random:',
    '  gen/embed: (10, 64) here, (3, 64) there',
    '  disc/embed: (10, 8) here, (3, 8) there',
  ]


@pytest.mark.processes
def test_init_flag_sets_the_source(source, tmp_path):
  flags = '--config=experiments/vanilla_mnist.py:tiny', f'--init={source}'
  run = lambda *more: subprocess.run(
    launch(*flags, *more), capture_output=True, text=True, check=False
  )
  done = run(f'--workdir={tmp_path / "a"}', f'--config.total_images={DISPATCH}')
  assert done.returncode == 0, done.stderr
  assert f'Settings: init.source={source}' in done.stdout
  assert '4 of 4 arrays of gen' in done.stdout
  refused = run('--mode=preview')
  assert '--init needs --mode=train' in refused.stderr


def test_srgan_takes_the_generator_of_its_first_stage():
  """The first stage has no discriminator."""
  first, second = (get_config('srgan_folder', 'tiny') for _ in range(2))
  first.game.update(pixel=1.0, feature=0.0, adversarial=0.0)
  batch = {'images': jnp.zeros((1, 16, 16, 1)), 'example': jnp.arange(1)}
  old, new = (
    games.make(config).init(jax.random.key(seed), batch)[0]
    for seed, config in enumerate((first, second))
  )
  taken = (
    getattr(old, player) if player in second.init.players else None
    for player in Pair._fields
  )
  found = initial.Initial('there', Pair(*taken), old.gen, 'digest')
  tx = Pair(optax.identity(), optax.identity())
  state = states.create(jax.random.key(2), new, (), tx, 0)
  after, lines = initial.initialize(state, found)
  assert len(lines) == 1  # all arrays of gen
  assert_close(after.variables, Pair(old.gen, new.disc))
  assert_close(after.ema, old.gen)


def test_init_state_continues_another_run(tmp_path, capsys):
  """Bit for bit as the straight run, or with another learning rate from there
  on.
  """
  config = get_config('vanilla_mnist', 'tiny')
  half = cfg.changed(config, 'total_images', 16 * 12)
  loop.train(config, tmp_path / 'straight')
  loop.train(half, tmp_path / 'half')
  config.init.source, config.init.state = str(tmp_path / 'half'), True
  loop.train(config, tmp_path / 'rest')
  assert '/half, continued at iteration 12' in capsys.readouterr().out
  assert state_arrays(tmp_path / 'rest', 24) == state_arrays(
    tmp_path / 'straight', 24
  )
  assert metrics(tmp_path / 'rest')[0]['step'] > 12
  rate = 'optimizer.gen.learning_rate'
  loop.train(cfg.changed(config, rate, 0.01), tmp_path / 'other')
  assert state_arrays(tmp_path / 'other', 24) != state_arrays(
    tmp_path / 'straight', 24
  )
  for key, value, message in (
    ('total_images', 16 * 12, 'iteration 12 of 192 images, which this'),
    ('batch_size', 8, 'keep the batch sizes'),
    ('model.gen.hidden', (8,), 'its networks or optimizers are others'),
    ('init.source', '/nowhere', 'neither a run with a checkpoint nor'),
  ):
    with pytest.raises(UserError, match=message):
      loop.train(cfg.changed(config, key, value), tmp_path / key)
