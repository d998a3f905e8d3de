"""Tests that a run is the same on any number of devices and processes."""

import os
import signal
import socket
import subprocess
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, launch, with_devices
from runs import config_path, get_config, metrics
from schedules import one_segment_schedule

import gan_jax
from gan_jax.training import checkpoint, loop
from gan_jax.training.strategies import make_strategy

EXPERIMENTS = (
  'vanilla_mnist',
  *(
    pytest.param(name, marks=pytest.mark.slow)
    for name in ('dcgan_mnist', 'toy:ring', 'progressive_celebahq')
  ),
)
# No number of devices here divides the number of samples.
EVALUATED = (
  '--config.evaluation.every_images=96',
  '--config.evaluation.num_samples=31',
  "--config.evaluation.metrics=('fid', 'swd')",
  '--config.evaluation.features=pixels',
)


# WGAN-GP and Adam with b1 = 0 amplify rounding: on one device, a relative
# change of 1e-7 in the initial parameters changes a metric by 1.3% after 18
# iterations. With this eps the change is 5e-6, as with more devices.
STEADY = (
  '--config.optimizer.gen.eps=0.1',
  '--config.optimizer.disc.eps=0.1',
)


def environment(devices):
  """Returns the environment of a process with this number of devices."""
  return {**os.environ, 'XLA_FLAGS': with_devices(devices)}


def start(name, workdir, devices, *flags):
  """Starts a `:tiny` run with two evaluations; it is killed if it hangs."""
  steady = STEADY if name == 'progressive_celebahq' else ()
  command = launch(
    f'--config={config_path(name, "tiny")}', f'--workdir={workdir}',
    *EVALUATED, *steady, *flags,
  )  # fmt: skip
  return subprocess.Popen(
    ['timeout', '-s', 'KILL', '120', *command],
    cwd=ROOT,
    env=environment(devices),
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def start_two(name, workdir, devices, *flags):
  """Starts two processes of one run, with this number of devices each."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  return [
    start(
      name, workdir, devices, *flags, '--num_processes=2',
      f'--coordinator_address=localhost:{port}', f'--process_id={process}',
    )
    for process in range(2)
  ]  # fmt: skip


def finish(*processes):
  """Waits for processes; returns their exit codes and outputs."""
  outputs = [process.communicate()[0] for process in processes]
  return [process.returncode for process in processes], outputs


@pytest.fixture(scope='module', params=EXPERIMENTS)
def single(request, tmp_path_factory):
  """(name, workdir) of the run on one device."""
  workdir = tmp_path_factory.mktemp('single') / request.param
  codes, outputs = finish(start(request.param, workdir, 1))
  assert codes == [0], outputs
  return request.param, workdir


def check_same(name, workdir, single):
  """Checks that losses and variables are equal up to float32 rounding.

  Adam amplifies rounding: even if a gradient is only noise, a step is as large
  as the learning rate. So 99% of the values must agree to 2e-5, and all values
  to half the largest possible distance.
  """
  for one, other in zip(metrics(single), metrics(workdir), strict=True):
    assert one == pytest.approx(other, rel=2e-4, abs=1e-5)
  (end,) = {checkpoint.steps(run)[-1] for run in (single, workdir)}
  leaves = lambda run: jax.tree.leaves(
    checkpoint.read(run, ('variables', 'ema'), end)
  )
  gaps = [
    abs(x - y) for x, y in zip(leaves(single), leaves(workdir), strict=True)
  ]
  gaps = np.concatenate([gap.ravel() for gap in gaps])
  assert np.mean(gaps < 2e-5) > 0.99
  rate = get_config(name, 'tiny').optimizer.gen.learning_rate
  assert gaps.max() < end * rate / 2


# (pmap on 8 devices is also tested below, with two processes.)
@pytest.mark.parametrize(
  'parallel',
  ['jit', *(pytest.param(x, marks=pytest.mark.slow) for x in ('fsdp', 'pmap'))],
)
@pytest.mark.parametrize(
  'devices', [*(pytest.param(n, marks=pytest.mark.slow) for n in (2, 4)), 8]
)
@pytest.mark.processes
def test_run_equals_the_run_on_one_device(single, devices, parallel, tmp_path):
  name, workdir = single
  if name != 'vanilla_mnist' and devices != 8:
    pytest.skip('convolutions are tested only on 8 devices')
  if name == 'dcgan_mnist' and parallel != 'jit':
    pytest.skip('DCGAN is tested only with jit')
  process = start(name, tmp_path, devices, f'--config.parallel={parallel}')
  codes, outputs = finish(process)
  assert codes == [0], outputs
  assert f'{devices} x ' in outputs[0]
  check_same(name, tmp_path, workdir)


def test_fsdp_shards_the_state_and_trains_the_same(vanilla, tmp_path):
  config = get_config('vanilla_mnist', 'tiny')
  config.parallel = 'fsdp'
  state = loop.train(config, tmp_path)
  for one, other in zip(metrics(vanilla), metrics(tmp_path), strict=True):
    assert one == pytest.approx(other, rel=2e-4, abs=1e-5)
  placed = make_strategy('fsdp').shard_state(state)
  kernel = placed.variables.gen['params']['Dense_1']['kernel']
  assert kernel.shape == (32, 784)
  assert {x.data.shape for x in kernel.addressable_shards} == {(32, 392)}


@pytest.mark.parametrize(
  'parallel', ['jit', pytest.param('pmap', marks=pytest.mark.slow)]
)
@pytest.mark.processes
def test_two_processes_equal_the_run_on_one_device(single, parallel, tmp_path):
  """2 processes of 4 devices; one device then opens and continues the run."""
  name, workdir = single
  if (name == 'vanilla_mnist') != (parallel == 'pmap'):
    pytest.skip('convolutions are tested with jit, the MLP with pmap')
  flag = f'--config.parallel={parallel}'
  codes, outputs = finish(*start_two(name, tmp_path, 4, flag))
  assert codes == [0, 0], outputs
  assert '8 x cpu, 2 processes' in outputs[0]
  assert 'Workdir' not in outputs[1]  # only process 0 prints
  check_same(name, tmp_path, workdir)
  images = gan_jax.load(tmp_path).sample(4).astype(int)
  assert abs(images - gan_jax.load(workdir).sample(4)).max() <= 4
  if name != 'vanilla_mnist':
    return
  longer = f'--config.total_images={16 * 32}'
  codes, outputs = finish(start(name, tmp_path, 1, longer))
  assert codes == [0], outputs
  assert 'Resuming at iteration' in outputs[0]
  assert checkpoint.steps(tmp_path)[-1] == 32


@pytest.mark.slow
@pytest.mark.processes
def test_run_of_one_device_resumes_on_eight(single, tmp_path):
  """The 8 devices belong to 2 processes."""
  name, workdir = single
  if name != 'vanilla_mnist':
    pytest.skip('tested only with the smallest experiment')
  codes, outputs = finish(
    start(name, tmp_path, 1, f'--config.total_images={16 * 8}')
  )
  assert codes == [0], outputs
  codes, outputs = finish(*start_two(name, tmp_path, 4))
  assert codes == [0, 0], outputs
  assert 'Resuming at iteration 8' in outputs[0]
  check_same(name, tmp_path, workdir)


@pytest.mark.parametrize(
  'parallel',
  ['jit', *(pytest.param(x, marks=pytest.mark.slow) for x in ('fsdp', 'pmap'))],
)
@pytest.mark.processes
def test_preemption_of_one_process_stops_all(parallel, tmp_path):
  """After SIGTERM to one process, both save and exit at the same step."""
  flags = f'--config.parallel={parallel}', '--config.total_images=1_000_000'
  processes = start_two('vanilla_mnist', tmp_path, 2, *flags)
  while not processes[0].stdout.readline().startswith('iteration'):
    assert processes[0].poll() is None
  # `timeout` forwards the signal to its command.
  processes[1].send_signal(signal.SIGTERM)
  codes, outputs = finish(*processes)
  assert codes == [75, 75], outputs
  step = checkpoint.steps(tmp_path)[-1]
  for text in outputs:
    assert f'Preempted, saved at iteration {step:,}' in text
  assert metrics(tmp_path)[-1]['step'] == step


@pytest.mark.slow
@pytest.mark.processes
def test_preemption_of_one_process_ends_an_evaluation_of_both(tmp_path):
  """It would take minutes; after SIGTERM to one process both exit."""
  flags = '--config.evaluation.num_samples=2_000_000'
  processes = start_two('vanilla_mnist', tmp_path, 2, flags)
  while not processes[0].stdout.readline().startswith('Scores:'):
    assert processes[0].poll() is None
  time.sleep(5)
  processes[1].send_signal(signal.SIGTERM)
  codes, outputs = finish(*processes)
  assert codes == [75, 75], outputs
  for text in outputs:
    assert 'Preempted, before iteration 1' in text


def test_all_keys_are_distinct():
  """The keys of different examples, iterations and purposes differ."""
  from gan_jax.keys import Purpose, example_keys

  data = [
    np.asarray(
      jax.random.key_data(
        example_keys(jax.random.key(0), purpose, jnp.arange(64), step)
      )
    )
    for purpose in Purpose
    for step in range(4)
  ]
  drawn = np.concatenate(data)
  assert len(np.unique(drawn, axis=0)) == len(Purpose) * 4 * 64


def test_processes_divide_each_batch():
  """Two processes together load each example of a batch once."""
  from gan_jax.data.order import Stream
  from gan_jax.devices import _rows
  from gan_jax.training.feed import index_batch

  schedule = one_segment_schedule(64, 2, batch_size=16, gen_batch_size=32)
  batch_of = lambda process: index_batch(
    Stream(0, 100), None, schedule, lambda n: _rows(process, 2, n), 0
  )
  first, second = batch_of(0), batch_of(1)
  for step in range(2):
    disc = [batch.disc['example'][0, step] for batch in (first, second)]
    assert sorted(np.concatenate(disc)) == list(
      range(16 * step, 16 * step + 16)
    )
  gen = np.concatenate([batch.gen['example'][0] for batch in (first, second)])
  assert sorted(gen) == list(range(32, 64))
