"""Tests of `gan_jax.load`: a finished run, opened as in a notebook."""

import json
import shutil
import subprocess
import sys

import jax
import nbformat
import numpy as np
import pytest
from conftest import ROOT
from nbclient import NotebookClient
from runs import get_config, untrained_run

import gan_jax
from experiments import dcgan_celeba, vanilla_mnist
from gan_jax.bounds import check_counts, check_seed
from gan_jax.data.source import in_memory
from gan_jax.errors import UserError
from gan_jax.ops.pixels import to_uint8
from gan_jax.training import checkpoint, loop


@pytest.fixture(scope='module')
def workdir(vanilla, tmp_path_factory):
  return shutil.copytree(vanilla, tmp_path_factory.mktemp('run') / 'copy')


@pytest.fixture(scope='module')
def run(workdir):
  return gan_jax.load(workdir)


def test_samples_are_a_function_of_the_seed(run):
  images = run.sample(300, seed=3)  # more than one batch
  assert images.shape == (300, 28, 28, 1)
  assert images.dtype == np.uint8
  np.testing.assert_array_equal(images, run.sample(300, seed=3))
  assert (images != run.sample(300, seed=4)).any()
  assert len(np.unique(images.reshape(300, -1), axis=0)) == 300


def test_generator_is_pure_and_uses_the_ema(run, workdir):
  direct = run.generator(run.params, run.inputs(5))
  np.testing.assert_array_equal(to_uint8(direct), run.sample(5))
  state = checkpoint.read(workdir, ('ema', 'variables'), run.step)
  equal = lambda a, b: all(
    (x == y).all()
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  )
  assert equal(run.params, state['ema'])
  assert not equal(run.params, state['variables']['gen'])


def test_discriminator_equals_its_layers_by_hand(run):
  """The MLP of `:tiny`: 784 inputs, 32 units with leaky ReLU, a logit."""
  images = run.sample(300)
  params = jax.tree.map(np.float64, run.disc_vars['params'])
  x = images.reshape(300, -1) / 127.5 - 1
  x = x @ params['Dense_0']['kernel'] + params['Dense_0']['bias']
  x = np.where(x > 0, x, 0.2 * x)
  x = x @ params['Dense_1']['kernel'] + params['Dense_1']['bias']
  np.testing.assert_allclose(run.discriminator(images), x[:, 0], atol=1e-4)


def test_interpolate_leads_from_sample_to_sample(run):
  paths = run.interpolate(n=3, steps=5, seed=7)
  assert paths.shape == (3, 5, 28, 28, 1)
  ends = run.sample(6, seed=7).astype(int)
  assert abs(paths[:, 0] - ends[0::2]).max() <= 1
  assert abs(paths[:, -1] - ends[1::2]).max() <= 1


def test_labels_of_an_unconditional_run_raise(run):
  for method in (run.sample, run.show, run.interpolate):
    with pytest.raises(UserError, match='this run is unconditional: remove la'):
      method(2, labels=1)


@pytest.mark.parametrize(
  ('method', 'arguments', 'message'),
  [
    ('sample', {'n': 0}, 'n=0 must be 1 or more'),
    ('show', {'n': 0}, 'n=0 must be 1 or more'),
    ('interpolate', {'steps': 0}, 'steps=0 must be 1 or more'),
    ('nearest', {'k': 0}, 'k=0 must be 1 or more'),
  ],
)
def test_non_positive_counts_raise(run, method, arguments, message):
  with pytest.raises(UserError, match=message):
    getattr(run, method)(**arguments)


def test_nearest_shows_the_set_of_the_main_output(monkeypatch):
  """The data are two sets, and the samples are like one of them."""
  run = untrained_run(get_config('cyclegan_folder', 'tiny'), monkeypatch)
  assert run.nearest(2, k=3).size == (4 * 160, 2 * 160)


def test_nearest_of_a_small_set_shows_all_of_it(monkeypatch):
  run = untrained_run(get_config('vanilla_mnist', 'tiny'), monkeypatch)
  few = in_memory({'images': np.zeros((3, 28, 28, 1), np.uint8)})
  monkeypatch.setattr('gan_jax.data.make', lambda config: few)
  assert run.nearest(2, k=4).size == (4 * 140, 2 * 140)


def test_non_integer_counts_and_seeds_raise():
  """Calls the checks directly, because the tests also check annotations."""
  for value in ('x', 2.0, None, True):
    with pytest.raises(UserError, match=f'steps={value!r} must be an integer'):
      check_counts(n=1, steps=value)
  check_counts(n=np.int64(1))
  check_seed(0)
  with pytest.raises(UserError, match="seed='x' must be an integer"):
    check_seed('x')
  with pytest.raises(UserError, match='seed=-1 must be 0 or more'):
    check_seed(-1)


def test_metrics_are_a_table(run):
  metrics = run.metrics()
  expected = ['step', 'images', 'gen/loss', 'disc/loss', 'images_per_second']
  assert set(expected) <= set(metrics.columns)
  assert metrics['step'].iloc[-1] == run.step == 24
  assert metrics['images'].iloc[-1] == run.images


def test_show_enlarges_small_images(run):
  picture = run.show(9)
  assert picture.size == (7 * 3 * 28, 7 * 3 * 28)


def test_older_checkpoint_can_be_loaded(workdir):
  steps = checkpoint.steps(workdir)
  assert steps == [8, 16, 24]
  older = gan_jax.load(workdir, step=8)
  assert (older.step, older.images) == (8, 8 * 16)
  assert (older.sample(2) != gan_jax.load(workdir).sample(2)).any()


def test_unreadable_runs_raise(workdir, tmp_path):
  with pytest.raises(UserError, match=r'step 9 \(available: 8, 16, 24\)'):
    gan_jax.load(workdir, step=9)
  with pytest.raises(UserError, match=r'has no config\.json'):
    gan_jax.load(tmp_path)
  (tmp_path / 'config.json').write_text((workdir / 'config.json').read_text())
  with pytest.raises(UserError, match='no checkpoint yet'):
    gan_jax.load(tmp_path)
  assert sorted(path.name for path in tmp_path.iterdir()) == ['config.json']


@pytest.mark.processes
def test_run_opens_on_another_number_of_devices(workdir, run):
  """A run of two devices gives the same images on one device."""
  code = (
    f'import gan_jax; print(gan_jax.load({str(workdir)!r}).sample(2).sum())'
  )
  done = subprocess.run(
    [sys.executable, '-c', code],
    env={'JAX_PLATFORMS': 'cpu'},
    cwd=ROOT,
    check=True,
    capture_output=True,
    text=True,
  )
  assert int(done.stdout) == pytest.approx(run.sample(2).sum(), rel=1e-4)


@pytest.mark.parametrize(
  'experiment',
  [vanilla_mnist, pytest.param(dcgan_celeba, marks=pytest.mark.slow)],
)
@pytest.mark.processes
def test_notebook_executes(experiment, tmp_path):
  workdir = tmp_path / 'run'
  loop.train(experiment.get_config('tiny'), workdir)
  path = ROOT / 'experiments' / 'read_a_run.ipynb'
  notebook = nbformat.read(path, as_version=4)
  (cell,) = (c for c in notebook.cells if c.source.startswith('workdir = '))
  cell.source = f'workdir = {json.dumps(str(workdir))}'
  NotebookClient(notebook, timeout=120, kernel_name='python3').execute()
  images = [
    output
    for cell in notebook.cells
    for output in cell.get('outputs', [])
    if 'image/png' in output.get('data', {})
  ]
  assert len(images) == 4
