"""Every experiment, found by glob: its `:tiny` run, stopped, killed, resumed.

One straight run of each serves as the reference for all that follows.
"""

import json
import runpy
import signal
import subprocess
import time

import jax
import numpy as np
import pytest
from conftest import ROOT, launch
from tensorboard.backend.event_processing.event_accumulator import (
  EventAccumulator,
)

import gan_jax
from gan_jax import checkpoint, train
from gan_jax.errors import UserError

EXPERIMENTS = sorted(
  path.stem
  for path in (ROOT / 'experiments').glob('*.py')
  if path.stem != '__init__'
)
SHARED_KEYS = (
  'seed', 'batch_size', 'total_images', 'precision', 'parallel',
  'log_every_steps', 'sample_every_images', 'checkpoint_every_images',
)  # fmt: skip


def get_config(name, arg=''):
  path = ROOT / 'experiments' / f'{name}.py'
  return runpy.run_path(str(path))['get_config'](arg)


def everything(workdir, step):
  """All arrays of the state, by name, as bytes."""
  state = checkpoint.read(workdir, checkpoint.STATE, step)
  leaves = jax.tree_util.tree_leaves_with_path(state)
  raw = lambda x: (
    jax.random.key_data(x)
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
    else x
  )
  return {
    jax.tree_util.keystr(path): np.asarray(raw(leaf)).tobytes()
    for path, leaf in leaves
  }


def metrics(workdir):
  """`metrics.jsonl` without what no two runs share."""
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  lines = [json.loads(line) for line in lines]
  for line in lines:
    assert line.pop('images_per_second') > 0
  return lines


@pytest.fixture(scope='module', params=EXPERIMENTS)
def straight(request, tmp_path_factory):
  """(name, config, workdir) of a `:tiny` run that nothing disturbed."""
  workdir = tmp_path_factory.mktemp(request.param)
  config = get_config(request.param, 'tiny')
  train.train(config, workdir)
  return request.param, config, workdir


def test_full_config(straight):
  """What every experiment shares is at the top, and a typo is an error."""
  name, tiny, _ = straight
  for config in (get_config(name), tiny):
    for key in SHARED_KEYS:
      assert key in config
    assert config.data.source
    assert config.data.resolution
    for player in ('gen', 'disc'):
      assert config.model[player].name
      assert config.optimizer[player].learning_rate > 0
    assert config.game.name
  with pytest.raises(ValueError, match='tinny'):
    get_config(name, 'tinny')


def test_the_workdir_holds_the_whole_run(straight):
  _, config, workdir = straight
  written = json.loads((workdir / 'config.json').read_text())
  assert written['seed'] == config.seed
  lines = metrics(workdir)
  steps = [line['step'] for line in lines]
  assert steps == sorted(set(steps))
  assert lines[-1]['images'] >= config.total_images
  for line in lines:
    assert {'gen/loss', 'disc/loss', 'images'} <= line.keys()
    assert np.isfinite(list(line.values())).all()
  grids = sorted(path.stem for path in (workdir / 'samples').iterdir())
  assert int(grids[0]) == 0
  assert int(grids[-1]) == lines[-1]['images']
  events = EventAccumulator(str(workdir / 'tensorboard')).Reload()
  logged = [event.step for event in events.Scalars('gen/loss')]
  assert logged == steps


def test_stopped_and_resumed_is_the_same_run(straight, tmp_path):
  """Bit for bit: parameters, optimizers, average, statistics, metrics."""
  _, config, workdir = straight
  half = config.copy_and_resolve_references()
  half.total_images = config.total_images // 2
  train.train(half, tmp_path)
  middle = checkpoint.steps(tmp_path)[-1]
  train.train(config, tmp_path)
  end = checkpoint.steps(workdir)[-1]
  assert 0 < middle < end == checkpoint.steps(tmp_path)[-1]
  assert everything(tmp_path, end) == everything(workdir, end)
  assert everything(tmp_path, end) != everything(tmp_path, middle)
  assert metrics(tmp_path) == metrics(workdir)
  events = EventAccumulator(str(tmp_path / 'tensorboard')).Reload()
  logged = [event.step for event in events.Scalars('gen/loss')]
  assert logged == [line['step'] for line in metrics(workdir)]


def test_reads_back(straight):
  _, config, workdir = straight
  run = gan_jax.load(workdir)
  images = run.sample(3, seed=1)
  size = config.data.resolution
  assert images.shape == (3, size, size, config.data.channels)
  assert images.dtype == np.uint8
  np.testing.assert_array_equal(images[:2], run.sample(2, seed=1))


def test_killed_in_the_middle_and_run_again(tmp_path):
  """SIGKILL, a real process: the same command ends as if nothing had been."""
  flags = (
    '--config=experiments/vanilla_mnist.py:tiny',
    '--config.total_images=6400',  # 400 rounds
    '--config.checkpoint_every_images=640',
  )
  undisturbed, killed = tmp_path / 'undisturbed', tmp_path / 'killed'
  run = lambda workdir: launch(*flags, f'--workdir={workdir}')
  subprocess.run(run(undisturbed), cwd=ROOT, check=True)
  with subprocess.Popen(run(killed), cwd=ROOT) as process:
    deadline = time.monotonic() + 60
    while not list(killed.glob('checkpoints/[0-9]*')):
      assert process.poll() is None and time.monotonic() < deadline
      time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
  stopped = checkpoint.steps(killed)
  again = subprocess.run(
    run(killed), cwd=ROOT, check=True, capture_output=True, text=True
  )
  if stopped and stopped[-1] < 400:
    assert f'Resuming at round {stopped[-1]}' in again.stdout
  assert everything(killed, 400) == everything(undisturbed, 400)
  assert metrics(killed) == metrics(undisturbed)


@pytest.mark.parametrize('parallel', ['jit', 'pmap'])
@pytest.mark.parametrize('name', ['vanilla_mnist', 'dcgan_mnist'])
def test_devices_make_no_difference(name, parallel, tmp_path):
  """Two devices, either way, against one: parameters to float32 rounding.

  Adam's first steps are as large as the learning rate wherever a gradient is
  only noise, so the losses are compared to 1e-4, and parameters to 2e-5 in
  all but a few.
  """
  config = get_config(name, 'tiny')
  config.parallel = parallel
  train.train(config, tmp_path / 'two')
  flags = (f'--config=experiments/{name}.py:tiny', f'--workdir={tmp_path}/one')
  environment = {'JAX_PLATFORMS': 'cpu', 'HOME': str(tmp_path)}
  subprocess.run(launch(*flags), cwd=ROOT, check=True, env=environment)
  for one, two in zip(
    metrics(tmp_path / 'one'), metrics(tmp_path / 'two'), strict=True
  ):
    assert one == pytest.approx(two, rel=1e-4, abs=1e-5)


def test_a_workdir_of_another_run(straight):
  _, config, workdir = straight
  other = config.copy_and_resolve_references()
  other.batch_size *= 2
  with pytest.raises(UserError, match='another config: batch_size'):
    train.train(other, workdir)


def test_a_batch_that_the_devices_do_not_divide(tmp_path):
  config = get_config('vanilla_mnist', 'tiny')
  config.batch_size = 17
  with pytest.raises(
    UserError, match='2 devices: the nearest that is: 16 or 18'
  ):
    train.train(config, tmp_path / 'new')
  assert not (tmp_path / 'new').exists()
