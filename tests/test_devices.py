"""One run, on any number of devices and processes: the same curve."""

import os
import re
import signal
import socket
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, launch
from runs import get_config, metrics
from tables import constant_table

import gan_jax
from gan_jax.training import checkpoint

EXPERIMENTS = (
  'vanilla_mnist',
  *(
    pytest.param(name, marks=pytest.mark.slow)
    for name in ('dcgan_mnist', 'toy_ring', 'progressive_celebahq')
  ),
)
# Samples that no number of devices here divides.
EVALUATED = (
  '--config.evaluation.every_images=96',
  '--config.evaluation.num_samples=31',
  "--config.evaluation.metrics=('fid', 'swd')",
  '--config.evaluation.features=pixels',
)


# Rounding is magnified by WGAN-GP and Adam with b1 = 0: on one device, other
# first parameters by 1e-7 of each are 1.3% of a metric 18 iterations later.
# With this eps they are 5e-6 of it at the end, and so are other devices.
STEADY = (
  '--config.optimizer.gen.eps=0.1',
  '--config.optimizer.disc.eps=0.1',
)


def environment(devices):
  """Of a process that has so many devices."""
  flags = re.sub('count=[0-9]+', f'count={devices}', os.environ['XLA_FLAGS'])
  return {**os.environ, 'XLA_FLAGS': flags}


def start(name, workdir, devices, *flags):
  """A process of the `:tiny` run, evaluated twice; killed if it hangs."""
  steady = STEADY if name == 'progressive_celebahq' else ()
  command = launch(
    f'--config=experiments/{name}.py:tiny', f'--workdir={workdir}',
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
  """Two processes of one run, so many devices each."""
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
  """Their exit codes, and what they said."""
  said = [process.communicate()[0] for process in processes]
  return [process.returncode for process in processes], said


@pytest.fixture(scope='module', params=EXPERIMENTS)
def alone(request, tmp_path_factory):
  """(name, workdir) of the run on one device."""
  workdir = tmp_path_factory.mktemp('alone') / request.param
  codes, said = finish(start(request.param, workdir, 1))
  assert codes == [0], said
  return request.param, workdir


def check_same(name, workdir, alone):
  """The same losses and variables, to float32 rounding.

  Which Adam magnifies: where a gradient is only noise, a step is as large as
  the learning rate all the same. So 99% of the values are held to 2e-5, and
  all to half of the way that they could have gone.
  """
  for one, other in zip(metrics(alone), metrics(workdir), strict=True):
    assert one == pytest.approx(other, rel=2e-4, abs=1e-5)
  (end,) = {checkpoint.steps(run)[-1] for run in (alone, workdir)}
  leaves = lambda run: jax.tree.leaves(
    checkpoint.read(run, ('variables', 'ema'), end)
  )
  gaps = [
    abs(x - y) for x, y in zip(leaves(alone), leaves(workdir), strict=True)
  ]
  gaps = np.concatenate([gap.ravel() for gap in gaps])
  assert np.mean(gaps < 2e-5) > 0.99
  rate = get_config(name, 'tiny').optimizer.gen.learning_rate
  assert gaps.max() < end * rate / 2


@pytest.mark.parametrize('parallel', ['jit', 'pmap'])
@pytest.mark.parametrize(
  'devices', [*(pytest.param(n, marks=pytest.mark.slow) for n in (2, 4)), 8]
)
def test_devices_make_no_difference(alone, devices, parallel, tmp_path):
  name, workdir = alone
  if name != 'vanilla_mnist' and devices != 8:
    pytest.skip('the convolutions are tried on 8 devices alone')
  if name == 'dcgan_mnist' and parallel != 'jit':
    pytest.skip('DCGAN is tried by jit')
  process = start(name, tmp_path, devices, f'--config.parallel={parallel}')
  codes, said = finish(process)
  assert codes == [0], said
  assert f'{devices} x ' in said[0]
  check_same(name, tmp_path, workdir)


@pytest.mark.parametrize('parallel', ['jit', 'pmap'])
def test_two_processes_make_no_difference(alone, parallel, tmp_path):
  """2 processes of 4 devices: read on one device, and prolonged on one."""
  name, workdir = alone
  if (name == 'vanilla_mnist') != (parallel == 'pmap'):
    pytest.skip('the convolutions are tried with jit, the MLP with pmap')
  flag = f'--config.parallel={parallel}'
  codes, said = finish(*start_two(name, tmp_path, 4, flag))
  assert codes == [0, 0], said
  assert '8 x cpu, 2 processes' in said[0]
  assert 'Workdir' not in said[1]  # one of them speaks
  check_same(name, tmp_path, workdir)
  images = gan_jax.load(tmp_path).sample(4).astype(int)
  assert abs(images - gan_jax.load(workdir).sample(4)).max() <= 4
  if name != 'vanilla_mnist':
    return
  longer = f'--config.total_images={16 * 32}'
  codes, said = finish(start(name, tmp_path, 1, longer))
  assert codes == [0], said
  assert 'Resuming at iteration' in said[0]
  assert checkpoint.steps(tmp_path)[-1] == 32


@pytest.mark.slow
def test_one_device_then_eight(alone, tmp_path):
  """Begun on one device, and gone on with on 2 processes of 4."""
  name, workdir = alone
  if name != 'vanilla_mnist':
    pytest.skip('tried with the smallest')
  codes, said = finish(
    start(name, tmp_path, 1, f'--config.total_images={16 * 8}')
  )
  assert codes == [0], said
  codes, said = finish(*start_two(name, tmp_path, 4))
  assert codes == [0, 0], said
  assert 'Resuming at iteration 8' in said[0]
  check_same(name, tmp_path, workdir)


@pytest.mark.parametrize(
  'parallel', ['jit', pytest.param('pmap', marks=pytest.mark.slow)]
)
def test_preemption_of_one_process_is_that_of_all(parallel, tmp_path):
  """SIGTERM to one: both save, and leave at the same step, with their code."""
  flags = f'--config.parallel={parallel}', '--config.total_images=1_000_000'
  processes = start_two('vanilla_mnist', tmp_path, 2, *flags)
  while not processes[0].stdout.readline().startswith('iteration'):
    assert processes[0].poll() is None
  # `timeout` hands the signal on to the one that it watches.
  processes[1].send_signal(signal.SIGTERM)
  codes, said = finish(*processes)
  assert codes == [75, 75], said
  step = checkpoint.steps(tmp_path)[-1]
  for text in said:
    assert f'Preempted, saved at iteration {step:,}' in text
  assert metrics(tmp_path)[-1]['step'] == step


def test_no_two_examples_see_the_same_latents():
  """The keys of all examples, iterations and purposes are distinct."""
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


def test_processes_share_each_batch_out():
  """Two processes are fed all of one batch, each row once."""
  from gan_jax.data.order import Stream
  from gan_jax.devices import _share
  from gan_jax.training.feed import index_batch

  table = constant_table(64, 2, batch_size=16, gen_batch_size=32)
  of = lambda process: index_batch(
    Stream(0, 100), None, table, lambda n: _share(process, 2, n), 0
  )
  ones, others = of(0), of(1)
  for step in range(2):
    disc = [fed.disc['example'][0, step] for fed in (ones, others)]
    assert sorted(np.concatenate(disc)) == list(
      range(16 * step, 16 * step + 16)
    )
  gen = np.concatenate([fed.gen['example'][0] for fed in (ones, others)])
  assert sorted(gen) == list(range(32, 64))
