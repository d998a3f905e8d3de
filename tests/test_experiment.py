"""Tests of `gan_jax.experiment` and `gan_jax.train`: training from Python."""

import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

import gan_jax
from experiments import vanilla_mnist
from gan_jax.errors import UserError

VANILLA = str(ROOT / 'experiments' / 'vanilla_mnist.py')


def test_overrides_equal_those_of_the_flags():
  changes = {'seed': 5, 'model.disc.dropout': 0.25, 'data.crop': None}
  config = gan_jax.experiment(f'{VANILLA}:tiny', **changes)
  expected = vanilla_mnist.get_config('tiny')
  expected.seed, expected.model.disc.dropout = 5, 0.25
  assert config.to_json() == expected.to_json()


@pytest.mark.parametrize(
  ('file', 'changes', 'message'),
  [
    ('vanila_mnist.py', {}, "no experiment file .*did you mean '.*vanilla_mni"),
    ('vanilla_mnist.py', {'sed': 5}, "no key 'sed'; did you mean 'seed'"),
    ('vanilla_mnist.py', {'seed': 'a'}, "seed='a' must have the type of its"),
    ('vanilla_mnist.py', {'model': 1}, 'config.model is a block'),
    (
      'vanilla_mnist.py',
      {'model.gen.negative_slope': 0.1},
      'has no effect: config.model.gen.activation is relu',
    ),
    ('vanilla_mnist.py:tinny', {}, "failed: ValueError: unknown argument 'tin"),
  ],
)
def test_user_errors_are_one_line(file, changes, message):
  with pytest.raises(UserError, match=message) as error:
    gan_jax.experiment(f'{ROOT}/experiments/{file}', **changes)
  assert '\n' not in str(error.value)


def test_train_returns_the_run_and_resumes(tmp_path):
  config = gan_jax.experiment(f'{VANILLA}:tiny')
  run = gan_jax.train(config, tmp_path / 'run')
  assert (run.step, run.images) == (24, 384)
  again = gan_jax.train(config, tmp_path / 'run')  # nothing is left to train
  np.testing.assert_array_equal(run.sample(3), again.sample(3))


def test_experiment_is_read_from_any_folder(tmp_path):
  """Its imports from `experiments` work in a notebook elsewhere too."""
  code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import gan_jax
sys.path.remove({str(ROOT)!r})
print(gan_jax.experiment({VANILLA!r}, seed=7).seed)
"""
  done = subprocess.run(
    [sys.executable, '-c', code],
    cwd=tmp_path,
    env={'PYTHONPATH': '', 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
  )
  assert done.stdout == '7\n', done.stderr
