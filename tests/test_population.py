"""Tests of population-based training: choices by hand, and a whole sweep."""

import shlex
import signal

import pytest
import sweeps
from sweeps import check_once_each, drive, events, run, wait_for
from test_sweep_space import GEN, RANKED, make

import gan_jax
from gan_jax.errors import UserError
from gan_jax.sweep import report
from gan_jax.sweep.population import Member, next_generation

SPACE = {'x': {'low': 0.0, 'high': 10.0}, 'y': {'low': 0.0, 'high': 1.0}}


def members(*scores):
  return [
    Member(i, {'x': 1.0 + i, 'y': 0.5}, score) for i, score in enumerate(scores)
  ]


@pytest.fixture
def fast(tmp_path, monkeypatch):
  monkeypatch.setenv('EVENTS', str(tmp_path / 'events'))
  monkeypatch.setattr(report, 'write_plot', lambda *_: None)


def test_worst_quarter_copies_the_best():
  """Of eight members, the two worst continue from the two best, perturbed."""
  before = members(5.0, 1.0, 7.0, 3.0, 2.0, 8.0, 4.0, 6.0)
  after = next_generation(0, 1, before, SPACE, 'min')
  for i in (0, 1, 3, 4, 6, 7):
    assert after[i] == ({'x': 1.0 + i, 'y': 0.5}, i)
  for i in (2, 5):
    assert after[i].parent in (1, 4)
    x = {1: 2.0, 4: 5.0}[after[i].parent]
    assert after[i].params['x'] in (0.8 * x, 1.2 * x)
    assert after[i].params['y'] in (0.8 * 0.5, 1.2 * 0.5)
  highest = next_generation(0, 1, before, SPACE, 'max')
  assert {highest[i].parent for i in (1, 4)} <= {2, 5}
  assert after == next_generation(0, 1, before, SPACE, 'min')
  others = [next_generation(0, i, before, SPACE, 'min') for i in range(2, 9)]
  assert any(after != other for other in others)


def test_diverged_members_are_replaced():
  """Any number of them. Perturbed values stay in their range."""
  after = next_generation(0, 1, members(None, 2.0, None, None), SPACE, 'max')
  assert [child.parent for child in after] == [1, 1, 1, 1]
  assert after[1].params == {'x': 2.0, 'y': 0.5}
  narrow = {'x': {'low': 1.9, 'high': 2.1}, 'y': {'low': 0.0, 'high': 1.0}}
  after = next_generation(0, 1, members(None, 2.0, None, None), narrow, 'max')
  assert {child.params['x'] for child in after} <= {1.9, 2.0, 2.1}


@pytest.mark.usefixtures('fast')
def test_population_runs_all_generations(tmp_path, capsys):
  """The score is 1000 * rate: the lowest rate of a generation is copied."""
  run(tmp_path, 'population')
  printed = capsys.readouterr().out
  assert 'a population of 4 in 3 generations of 128 images' in printed
  check_once_each(12)
  table = gan_jax.load_sweep(tmp_path / 'sweep').trials
  check_lineage(table, tmp_path / 'sweep')
  # Each generation ends before the next begins.
  generations = [event['trial_id'] // 4 for event in events()]
  assert generations == sorted(generations)


def check_lineage(table, folder):
  rates = table[GEN].tolist()
  assert table.generation.tolist() == [0] * 4 + [1] * 4 + [2] * 4
  for row in table.itertuples():
    words = shlex.split(row.command)
    images = 128 * (1 + row.generation)
    assert f'--config.total_images={images}' in words
    if row.generation == 0:
      continue
    start = 4 * row.generation - 4
    before = rates[start : start + 4]
    best = start + before.index(min(before))
    worst = start + before.index(max(before))
    predecessor = row.trial - 4
    parent = int(row.parent)
    assert parent == (best if predecessor == worst else predecessor)
    factor = rates[row.trial] / rates[parent]
    low, high = (max(1e-4 / rates[parent], 0.8), 1.2)
    expected = [low, high] if predecessor == worst else [1.0]
    assert any(factor == pytest.approx(x, rel=1e-12) for x in expected)
    assert f'--config.init.source={folder}/trials/{parent:04}' in words
    assert '--config.init.state=True' in words


@pytest.mark.usefixtures('fast')
@pytest.mark.processes
def test_killed_population_resumes(tmp_path, monkeypatch):
  """Killed in the second generation, the sweep makes the same choices."""
  run(tmp_path, 'population')
  straight = gan_jax.load_sweep(tmp_path / 'sweep').trials
  (tmp_path / 'events').unlink()
  monkeypatch.setenv('PAUSE', '0.05')
  workdir = str(tmp_path / 'again')
  with drive(tmp_path, 'population', workdir=workdir) as driver:
    wait_for(lambda: len(events('begin')) == 6, 60)
    driver.send_signal(signal.SIGKILL)
    driver.stdout.read()
  monkeypatch.setenv('PAUSE', '0.01')
  run(tmp_path, 'population', workdir=workdir)
  check_once_each(12)
  resumed = gan_jax.load_sweep(workdir).trials
  columns = ['generation', 'parent', GEN, 'score', 'state']
  assert resumed[columns].equals(straight[columns])


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'population': {'size': 4}}, "needs 'interval_images', 2 or more"),
    ({'population': {'size': 4, 'interval_image': 9}},
     "did you mean 'interval_images'?"),
    ({'space': {GEN: [0.1, 0.2]}}, f'{GEN!r} is none'),
    ({'space': {'batch_size': {'low': 8, 'high': 16}}}, "'batch_size' is none"),
    ({'population': {'size': 4, 'interval_images': 48}},
     'interval_images=48 must be 64 or more, the images of a dispatch'),
    ({'fixed': {'total_images': 384, 'steps_per_dispatch': 9}},
     'interval_images=128 must be 144 or more, the images of a dispatch'),
    ({'pruner': {'name': 'median'}}, "a population has no 'pruner'"),
    ({'trials': 3}, "a population has no 'trials'"),
    ({'fixed': {'total_images': 200}}, 'must be a multiple'),
  ],
)  # fmt: skip
def test_invalid_populations_raise(tmp_path, changes, message):
  description = {
    'space': {GEN: {'low': 1e-4, 'high': 1e-2}},
    'fixed': {'total_images': 384},
    'population': {'size': 4, 'interval_images': 128},
    **RANKED,
  }
  make(tmp_path, description, name='one')
  with pytest.raises(UserError) as raised:
    make(tmp_path, {**description, **changes}, name='one')
  assert message in str(raised.value)


def test_schedule_that_depends_on_the_run_length_raises(tmp_path):
  """Members could not know the current learning rate."""
  file = tmp_path / 'swept.py'
  block = {
    'space': {'game.penalties.r1.weight': {'low': 0.1, 'high': 1.0}},
    'fixed': {'total_images': 256 * 8000},
    'population': {'size': 4, 'interval_images': 256 * 1000},
    **RANKED,
  }
  file.write_text(
    'from experiments import toy\n'
    'get_config = toy.get_config\n'
    f'def sweep():\n  return {{"one": {block}}}\n'
  )
  with pytest.raises(UserError, match='depends on the length of the run'):
    sweeps.plans(str(file), 'toy:ring')
