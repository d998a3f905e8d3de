"""Tests that reading another author's run executes none of its code."""

import json
import shutil
import sys

import numpy as np
import pytest

import gan_jax
from gan_jax.errors import UserError

HOSTILE = """
from pathlib import Path
Path(__file__).with_suffix('.ran').touch()

def look(images):
  return images.reshape(len(images), -1).astype('float32')
"""


def rows(images):
  """Returns the means of the rows."""
  return images.astype('float32').mean((2, 3))


@pytest.fixture(scope='module')
def trained(vanilla, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('stranger') / 'copy'
  shutil.copytree(vanilla, workdir)
  settings = json.loads((workdir / 'config.json').read_text())
  settings['evaluation'] |= {
    'features': 'hostile_module:look', 'metrics': ['fid'], 'num_samples': 20,
  }  # fmt: skip
  (workdir / 'config.json').write_text(json.dumps(settings))
  return workdir


@pytest.fixture
def hostile(tmp_path, monkeypatch):
  """Writes a module that creates a file when imported; yields that file."""
  (tmp_path / 'hostile_module.py').write_text(HOSTILE)
  monkeypatch.syspath_prepend(tmp_path)
  yield tmp_path / 'hostile_module.ran'
  sys.modules.pop('hostile_module', None)


def test_reading_a_run_imports_nothing_that_it_names(trained, hostile):
  run = gan_jax.load(trained)
  run.sample(2)
  run.show(4)
  message = "names features='hostile_module:look'.*pass features=FUNCTION"
  with pytest.raises(UserError, match=message) as error:
    run.nearest(2)
  assert '\n' not in str(error.value)
  for arguments in ((run,), (run.sample(20), run), (run, run.sample(20))):
    with pytest.raises(UserError, match=message):
      gan_jax.evaluate(*arguments)
  assert not hostile.exists()
  assert 'hostile_module' not in sys.modules


def test_features_named_by_the_reader_are_used(trained, hostile):
  run = gan_jax.load(trained)
  run.nearest(2, features=rows)
  run.nearest(2, features='pixels')
  score = gan_jax.evaluate(run, features=rows)['fid']
  assert score.protocol['features']['name'] == 'test_untrusted_runs:rows'
  by_name = gan_jax.evaluate(run, features='test_untrusted_runs:rows')['fid']
  assert by_name == score
  assert not hostile.exists()


def test_trusted_run_uses_its_own_features(trained, hostile):
  run = gan_jax.load(trained, trust=True)
  score = gan_jax.evaluate(run)['fid']
  assert score.protocol['features']['name'] == 'hostile_module:look'
  assert np.isfinite(score.value)
  assert hostile.exists()


def test_function_without_a_name_raises(trained):
  import functools

  run = gan_jax.load(trained)
  with pytest.raises(UserError, match='has no name'):
    run.nearest(2, features=functools.partial(rows))
