"""Runs every experiment, found by glob, with `:tiny`: straight, killed,
resumed.

One straight run of each experiment is the reference of all tests.
"""

import json
import signal

import numpy as np
import pytest
from runs import (
  EXPERIMENTS,
  TINY,
  config_path,
  get_config,
  logged_steps,
  metrics,
  state_arrays,
)

import gan_jax
from gan_jax.errors import UserError
from gan_jax.training import checkpoint, loop
from gan_jax.training.schedule import make_schedule

SHARED_KEYS = (
  'seed', 'batch_size', 'total_images', 'precision', 'parallel',
  'log_every_steps', 'sample_every_images', 'checkpoint_every_images',
)  # fmt: skip


# These cover what the experiments share. The others run with `-m slow`, unless
# their `:tiny` run equals an earlier one. (Progressive growing:
# test_progressive.py.)
ALWAYS = (
  'dcgan_celeba',
  'toy:ring',
  'vanilla_mnist',
)
RUNS = [
  name if name in ALWAYS else pytest.param(name, marks=pytest.mark.slow)
  for name in sorted(TINY.values())
]


@pytest.fixture(scope='module', params=RUNS)
def straight(request, tmp_path_factory):
  """(name, config, workdir) of an undisturbed `:tiny` run."""
  workdir = tmp_path_factory.mktemp(request.param)
  config = get_config(request.param, 'tiny')
  loop.train(config, workdir)
  return request.param, config, workdir


@pytest.mark.parametrize('name', EXPERIMENTS)
def test_full_config_has_the_shared_keys(name):
  """A typo in the argument is an error."""
  for config in (get_config(name), get_config(name, 'tiny')):
    assert make_schedule(config).total_steps
    for key in SHARED_KEYS:
      assert key in config
    assert config.data.source or (config.data.a and config.data.b)
    assert config.data.resolution
    for player in ('gen', 'disc'):
      assert config.model[player].name
      assert config.optimizer[player].learning_rate > 0
    assert config.game.name
  with pytest.raises(ValueError, match='tinny'):
    get_config(name, 'tinny')


def test_workdir_holds_config_metrics_and_samples(straight):
  _, config, workdir = straight
  written = json.loads((workdir / 'config.json').read_text())
  assert written['seed'] == config.seed
  lines = metrics(workdir)
  steps = [line['step'] for line in lines]
  assert steps == sorted(set(steps))
  schedule = make_schedule(config)
  assert lines[-1]['images'] == schedule.images(schedule.total_steps)
  for line in lines:
    assert {'gen/loss', 'disc/loss', 'images'} <= line.keys()
    assert np.isfinite(list(line.values())).all()
  # (Each output has its own grids.)
  names = {path.stem for path in (workdir / 'samples').iterdir()}
  grids = sorted(name.partition('_')[0] for name in names)
  assert int(grids[0]) == 0
  assert int(grids[-1]) == lines[-1]['images']
  assert logged_steps(workdir) == steps


# Kills the process in its second save, and then runs launch.py (see forks.py).
KILLED = """
import signal
from gan_jax.training.checkpoint import Checkpoints

save, saved = Checkpoints.save, []

def save_once(self, step, *rest):
  if saved:
    self.close()  # completes the first save
    os.kill(os.getpid(), signal.SIGKILL)
  saved.append(step)
  save(self, step, *rest)

Checkpoints.save = save_once
app.run(launch.main, argv=sys.argv, flags_parser=launch.parse)
"""


@pytest.mark.processes
def test_killed_run_resumes_bit_for_bit(straight, forks, tmp_path, capsys):
  """After SIGKILL and a second start, parameters, optimizer states, EMA and
  statistics equal those of a straight run, and the metrics have neither gap nor
  repeat. (test_launch.py repeats a command in a process.)
  """
  name, config, workdir = straight
  flags = f'--config={config_path(name, "tiny")}', f'--workdir={tmp_path}'
  killed = forks.run(*flags, code=KILLED)
  assert killed.returncode == -signal.SIGKILL
  (middle,) = checkpoint.steps(tmp_path)
  before = state_arrays(tmp_path, middle)
  loop.train(config, tmp_path)
  assert f'Resuming at iteration {middle}' in capsys.readouterr().out
  end = checkpoint.steps(workdir)[-1]
  assert 0 < middle < end
  assert state_arrays(tmp_path, end) == state_arrays(workdir, end)
  assert state_arrays(tmp_path, end) != before
  assert metrics(tmp_path) == metrics(workdir)
  assert logged_steps(tmp_path) == logged_steps(workdir)


def test_load_samples_the_run(straight):
  _, config, workdir = straight
  run = gan_jax.load(workdir)
  images = run.sample(3, seed=1)
  size, channels = config.data.resolution, config.data.channels
  points = size == 1
  shape = (channels,) if points else (size, size, channels)
  assert images.shape == (3, *shape)
  assert images.dtype == (np.float32 if points else np.uint8)
  np.testing.assert_array_equal(images[:2], run.sample(2, seed=1))


def test_schedule_changes_batch_sizes_and_steps(tmp_path):
  """Two segments, through the whole program."""
  config = get_config('vanilla_mnist', 'tiny')
  config.schedule = (
    {'images': 128, 'disc_steps': 2, 'gen_batch_size': 8},
    {
      'images': 256,
      'batch_size': 32,
      'gen_learning_rate_factor': ('linear', 1.0, 0.0),
    },
  )
  loop.train(config, tmp_path)
  # 128 images in iterations of 2 x 16, then 256 in iterations of 32.
  last = metrics(tmp_path)[-1]
  assert (last['step'], last['images']) == (4 + 8, 384)
  assert gan_jax.load(tmp_path).images == 384
  config.schedule = ({'batch_size': 17},)
  with pytest.raises(UserError, match='batch_size=17 is not divisible'):
    loop.train(config, tmp_path / 'other')


def test_workdir_of_another_run_raises(straight):
  _, config, workdir = straight
  other = config.copy_and_resolve_references()
  other.batch_size *= 2
  with pytest.raises(UserError, match=r'holds another run.*batch_size'):
    loop.train(other, workdir)


def test_indivisible_batch_size_raises(tmp_path):
  config = get_config('vanilla_mnist', 'tiny')
  config.batch_size = 17
  with pytest.raises(UserError, match='2 devices: set 16 or 18'):
    loop.train(config, tmp_path / 'new')
  assert not (tmp_path / 'new').exists()
