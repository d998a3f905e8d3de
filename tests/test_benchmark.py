"""Tests of `--mode=benchmark` with shorter measurements."""

import json
import subprocess
import sys

import jax
import pytest
from conftest import ROOT
from runs import get_config

from gan_jax import data, games
from gan_jax.errors import UserError
from gan_jax.modes import dispatch_timer
from gan_jax.training import optimizers
from gan_jax.training.schedule import make_schedule

KEYS = {
  'images_per_second', 'compile_seconds_cold', 'compile_seconds_warm',
  'flops_per_image', 'flops_per_second', 'matmul_flops_per_second',
  'share_of_matmul', 'peak_memory_bytes', 'loader_images_per_second',
  'share_waiting_for_input', 'steps_per_dispatch_recommended', 'devices',
}  # fmt: skip


SHORT = """
import runpy, sys
from gan_jax.modes import benchmark

benchmark.WINDOW_SECONDS, benchmark.LENGTHS = 0.05, (1, 4)
sys.argv = ['launch.py', '--mode=benchmark', *sys.argv[1:]]
runpy.run_path('launch.py', run_name='__main__')
"""


def run(*flags):
  """Returns the printed output, and the figures of its last line."""
  command = [sys.executable, '-c', SHORT, *flags]
  done = subprocess.run(
    command, cwd=ROOT, capture_output=True, text=True, check=True
  )
  return done.stdout, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.processes
def test_benchmark_prints_json_and_writes_no_files(tmp_path):
  """On two devices; the FLOPs equal those computed by hand."""
  _, figures = run(
    '--config=experiments/vanilla_mnist.py:tiny',
    f'--workdir={tmp_path / "run"}',
  )
  assert figures.keys() >= KEYS
  assert figures['devices'].startswith('2 x')
  assert figures['images_per_second'] > 0
  assert figures['loader_images_per_second'] > 0
  assert 0 <= figures['share_waiting_for_input'] < 1
  # G 64-32-784, D 784-32-1. Forward: D twice and G once for D, D once for G.
  gen, disc = 64 * 32 + 32 * 784, 784 * 32 + 32
  # The backward pass does not reach the images.
  disc_update = 2 * (disc + disc + 32)
  gen_update = 2 * disc + gen + 32 * 784
  assert figures['flops_per_image'] == pytest.approx(
    2 * (disc_update + gen + gen_update), rel=1e-3
  )
  assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_benchmark_needs_no_data(tmp_path):
  """With pmap. CelebA is not present and is not downloaded."""
  printed, figures = run(
    '--config=experiments/dcgan_celeba.py:tiny',
    '--config.data.source=celeba',
    '--config.parallel=pmap',
    f'--config.data.dir={tmp_path}',
  )
  assert 'the data is not present' in printed
  assert figures['images_per_second'] > 0
  assert figures['loader_images_per_second'] is None


@pytest.mark.parametrize('name', ['progressive_folder', 'srgan_folder'])
def test_folder_that_is_not_named_yet_is_not_read(name):
  """Its experiment is timed on generated images; a wrong path is an error."""
  config = get_config(name)
  assert config.data.source.endswith(':')
  assert not data.is_ready(config)
  config.data.source += '/nowhere'
  assert data.is_ready(config)
  with pytest.raises(UserError, match='/nowhere'):
    data.make(config)


def test_random_crops_set_the_size_of_networks_and_pools():
  """CycleGAN's image pools have the size of the crops, not of the loaded
  images.
  """
  config = get_config('cyclegan_folder', 'tiny')
  assert (config.data.load_resolution, config.data.resolution) == (18, 16)
  source = dispatch_timer.generated_source(config)
  tx = optimizers.make(config.optimizer.to_dict())
  create = dispatch_timer.make_create_state(
    games.make(config), tx, config, source
  )
  state = jax.eval_shape(create)
  assert state.game_state['a'].images.shape == (6, 16, 16, 1)


def test_endless_schedule_stays_in_its_stage():
  """The tiny stages are shorter than a measurement and differ in batch size."""
  config = get_config('progressive_cifar10', 'tiny')
  placed = make_schedule(config).segments[0]
  schedule, first = dispatch_timer.endless_schedule(config, placed.first_step)
  later = schedule.phase(placed.end_step + 1000)
  assert first == placed.first_step
  assert schedule.total_steps > placed.end_step + 1000
  assert schedule.total_steps % schedule.steps_per_dispatch == 0
  assert later.stage == placed.segment.stage
  assert later.batch_size == placed.segment.batch_size
