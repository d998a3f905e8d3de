"""Tests of sweeps of trials that train nothing: killing, pruning, reports."""

import json
import math
import os
import shlex
import signal
import sys
import threading
from pathlib import Path

import optuna
import pytest
import sweeps
from runs import get_config
from soak_sweep import soak
from sweeps import check_once_each, drive, events, run, steps, wait_for

import gan_jax
from gan_jax.errors import UserError
from gan_jax.files import held
from gan_jax.sweep import local, report
from gan_jax.sweep import plan as plans
from gan_jax.sweep import space as spaces
from gan_jax.sweep import study as studies
from gan_jax.sweep.process import Process


@pytest.fixture(autouse=True)
def events_file(tmp_path, monkeypatch):
  monkeypatch.setenv('EVENTS', str(tmp_path / 'events'))


@pytest.fixture
def no_plot(monkeypatch):
  """Skips the plot, which takes a second."""
  monkeypatch.setattr(report, 'write_plot', lambda *_: None)


def manners(monkeypatch, **by_trial):
  by_id = {
    trial_id.removeprefix('trial'): manner
    for trial_id, manner in by_trial.items()
  }
  monkeypatch.setenv('MANNERS', json.dumps(by_id))


def states(folder):
  table = gan_jax.load_sweep(folder / 'sweep').trials
  return dict(zip(table.trial, table.state, strict=True))


def test_table_has_the_values_that_trials_used(tmp_path):
  """Also of keys that the chosen block does not set. A trial without a config
  has the planned values.
  """
  space = {
    'model.gen.hidden': [(8, 8)],
    'optimizer.gen.learning_rate': [1],
    'penalty': {'none': {}, 'r1': {'game.penalties.r1.weight': 2.0}},
  }
  file = tmp_path / 'swept.py'
  block = {'space': space, 'score': 'gen/loss', 'goal': 'min'}
  file.write_text(
    'from experiments import toy\n'
    'get_config = toy.get_config\n'
    f'def sweep():\n  return {{"one": {block}}}\n'
  )
  plan = plans.make(str(file), get_config('toy:ring', 'tiny'), {})
  study = optuna.create_study()
  studies.enqueue(study, plan, tmp_path, retry_failed=True)
  for trial_id, weight in enumerate((0.1, 2.0)):
    trial = study.ask()
    spaces.suggest(trial, space)
    workdir = Path(studies.workdir_of(tmp_path, trial_id))
    workdir.mkdir(parents=True)
    settings = {
      'model': {'gen': {'hidden': [8, 8]}},
      'game': {'penalties': {'r1': {'weight': weight}}},
      'optimizer': {'gen': {'learning_rate': 1.0}},
    }
    if trial_id == 0:
      (workdir / 'config.json').write_text(json.dumps(settings))
    trial.set_user_attr('resolved', report.resolved(str(workdir), plan))
    study.tell(trial, weight)
  report.write_description(plan, str(tmp_path))
  report.write_table(study, plan, str(tmp_path))
  # As trained, not as typed.
  lines = (tmp_path / 'sweep.csv').read_text().splitlines()
  assert '"(8, 8)",1.0,' in lines[1]
  assert '"(8, 8)",1,' in lines[2]
  table = gan_jax.load_sweep(tmp_path).trials
  assert table['game.penalties.r1.weight'].tolist() == [0.1, 2.0]
  assert table['model.gen.hidden'].tolist() == ['(8, 8)'] * 2
  assert table.penalty.tolist() == ['none', 'r1']


def test_grid_is_run_and_reported(tmp_path, capsys):
  """Scores are 1000 * rate + seed: 1, 2, 2, 3; by hand."""
  run(tmp_path)
  printed = capsys.readouterr().out
  check_once_each(4)
  assert sweeps.max_parallel() == 2
  sweep = gan_jax.load_sweep(tmp_path / 'sweep')
  table = sweep.trials
  assert (
    table['optimizer.gen.learning_rate'].tolist() == [0.001] * 2 + [0.002] * 2
  )
  assert table.seed.tolist() == [0, 1, 0, 1]
  assert table.score.tolist() == [1, 2, 2, 3]
  assert table.images.tolist() == [480] * 4
  seeds = sweep.over_seeds()
  assert seeds.score.tolist() == [1.5, 2.5]
  assert seeds.deviation.tolist() == pytest.approx([math.sqrt(0.5)] * 2)
  assert seeds.best.tolist() == [0, 2]
  assert 'Best: trial 0, gen/diversity 1' in printed
  again = shlex.split(sweep.row().command)
  assert again[:2] == ['python', 'launch.py']
  assert {f'--config={tmp_path}/swept.py', '--config.seed=0'} <= set(again)
  assert (tmp_path / 'sweep' / 'sweep.png').read_bytes()[1:4] == b'PNG'

  before = events()
  run(tmp_path)  # nothing is left to do
  assert events() == before
  assert 'Best: trial 0' in capsys.readouterr().out


@pytest.mark.usefixtures('no_plot')
def test_diverged_and_failed_trials_are_reported(tmp_path, monkeypatch, capsys):
  """Repeating the command runs only the failed trial again."""
  manners(monkeypatch, trial0='diverge', trial2='fail')
  run(tmp_path)
  assert states(tmp_path) == {0: 'diverged', 1: 'done', 2: 'failed', 3: 'done'}
  printed = capsys.readouterr().out
  assert 'Trial 0 diverged: gen/loss not finite at iteration 12' in printed
  assert "Trial 2 failed: ValueError: it's the config" in printed
  sweep = gan_jax.load_sweep(tmp_path / 'sweep')
  assert math.isnan(sweep.trials.score[0])
  # A setting with a diverged trial comes last.
  assert sweep.over_seeds().best.tolist() == [3, 1]
  assert sweep.row().trial == 3
  manners(monkeypatch)
  before = len(events('begin'))
  run(tmp_path)
  assert [event['trial_id'] for event in events('begin')[before:]] == [2]
  assert states(tmp_path) == {0: 'diverged', 1: 'done', 2: 'done', 3: 'done'}


@pytest.mark.usefixtures('no_plot')
@pytest.mark.processes
def test_killed_trial_resumes_from_its_checkpoint(tmp_path, monkeypatch):
  """Killed in iteration 12, it resumes at 10, and logs each iteration once."""
  manners(monkeypatch, trial1='die once')
  run(tmp_path)
  check_once_each(4)
  begun = [e['step'] for e in events('begin') if e['trial_id'] == 1]
  assert begun == [0, 10]
  assert steps(tmp_path, 1) == list(range(1, 31))


@pytest.mark.usefixtures('no_plot')
@pytest.mark.processes
def test_repeatedly_killed_trial_fails(tmp_path, monkeypatch):
  manners(monkeypatch, trial0='die')
  run(tmp_path)
  assert states(tmp_path) == {0: 'failed', 1: 'done', 2: 'done', 3: 'done'}
  # It never passes the same iteration: one run, and three retries.
  assert [event['trial_id'] for event in events('begin')].count(0) == 4


@pytest.mark.usefixtures('no_plot')
def test_bad_trial_is_pruned(tmp_path, monkeypatch, capsys):
  """From the fourth step on, the third trial is worse than the median of two.

  It saves and exits as after a preemption; here its checkpoint is deleted.
  """
  monkeypatch.setenv('PAUSE', '0.04')
  run(tmp_path, 'pruned', parallel_trials=1)
  assert states(tmp_path) == {0: 'done', 1: 'done', 2: 'pruned', 3: 'pruned'}
  codes = {event['trial_id']: event['code'] for event in events('end')}
  assert codes == {0: 0, 1: 0, 2: 75, 3: 75}
  assert 4 <= len(steps(tmp_path, 3)) < 30
  trials = tmp_path / 'sweep' / 'trials'
  assert (trials / '0001' / 'checkpoints').exists()
  assert not (trials / '0003' / 'checkpoints').exists()
  assert '2 done, 2 pruned' in capsys.readouterr().out


def test_equal_failures_stop_the_sweep(tmp_path, monkeypatch):
  manners(monkeypatch, **{f'trial{trial_id}': 'fail' for trial_id in range(8)})
  with pytest.raises(UserError, match=r"all with: ValueError: it's the config"):
    run(tmp_path, 'many')
  assert 3 <= len(events('begin')) <= 4


@pytest.mark.usefixtures('no_plot')
@pytest.mark.processes
def test_killed_driver_resumes_its_trials(tmp_path, monkeypatch):
  """Its trials save and end with it; the same command resumes them."""
  monkeypatch.setenv('PAUSE', '0.1')
  with drive(tmp_path) as driver:
    wait_for(lambda: len(events('begin')) == 2)
    with pytest.raises(UserError, match='is in use by a sweep that is still'):
      run(tmp_path)
    wait_for(lambda: steps(tmp_path, 0)[-1:] > [6])
    driver.kill()
    driver.stdout.read()
  wait_for(lambda: len(events('end')) == 2, seconds=5)
  assert [event['code'] for event in events('end')] == [75, 75]
  monkeypatch.setenv('PAUSE', '0.01')
  run(tmp_path)
  check_once_each(4)
  assert len(events('begin')) == 6
  resumed = [e['step'] for e in events('begin') if e['step']]
  assert len(resumed) == 2
  assert all(
    steps(tmp_path, trial_id) == list(range(1, 31)) for trial_id in range(4)
  )


@pytest.mark.parametrize(
  ('number', 'code'),
  [
    (signal.SIGINT, 130),
    pytest.param(signal.SIGTERM, 75, marks=pytest.mark.slow),
  ],
)
@pytest.mark.usefixtures('no_plot')
@pytest.mark.processes
def test_signal_to_the_driver_preempts_its_trials(
  tmp_path, monkeypatch, number, code
):
  monkeypatch.setenv('PAUSE', '0.1')
  with drive(tmp_path) as driver:
    wait_for(lambda: len(events('begin')) == 2)
    driver.send_signal(number)
    printed = driver.stdout.read()
  assert driver.returncode == code, printed
  assert 'Stopping: the trials' in printed
  assert [event['code'] for event in events('end')] == [75, 75]
  assert set(states(tmp_path).values()) == {'waiting'}
  monkeypatch.setenv('PAUSE', '0.01')
  run(tmp_path)
  check_once_each(4)
  assert len(events('begin')) == 6


@pytest.mark.processes
def test_second_signal_kills_the_trials(tmp_path, monkeypatch):
  """A trial that ignores SIGTERM is killed."""
  monkeypatch.setenv('PAUSE', '0.5')
  manners(monkeypatch, trial0='deaf')
  with drive(tmp_path, parallel_trials=1) as driver:
    wait_for(lambda: len(events('begin')) == 1)
    driver.send_signal(signal.SIGINT)
    while not driver.stdout.readline().startswith('Stopping'):
      assert driver.poll() is None
    driver.send_signal(signal.SIGINT)
    driver.stdout.read()
  assert driver.returncode == 130
  assert not events('end')
  with pytest.raises(ProcessLookupError):
    os.kill(events('begin')[0]['pid'], 0)


@pytest.mark.usefixtures('no_plot')
def test_trial_waits_for_a_locked_workdir(tmp_path):
  """A process that outlived its driver holds the lock of its workdir."""
  workdir = tmp_path / 'sweep' / 'trials' / '0000'
  begun = []

  def hold():
    with held(workdir, lambda: None):
      holding.set()
      # Another trial has ended, so this one had time to begin.
      wait_for(lambda: events('end'))
      begun.extend(event['trial_id'] for event in events('begin'))

  holding = threading.Event()
  thread = threading.Thread(target=hold)
  plan = plans.make(str(experiment(tmp_path)), config(), {}, 'search')
  report.write_description(plan, str(tmp_path / 'sweep'))
  thread.start()
  holding.wait()
  run(tmp_path, 'search')
  thread.join()
  assert begun
  assert 0 not in begun
  check_once_each(4)


def config():
  return sweeps.get_config('vanilla_mnist', 'tiny')


def experiment(folder):
  file = folder / 'swept.py'
  file.write_text(sweeps.EXPERIMENT)
  return file


@pytest.mark.usefixtures('no_plot')
def test_another_sweep_is_refused(tmp_path):
  run(tmp_path, 'search')
  with pytest.raises(
    UserError, match=r'holds another sweep.*name \(search there'
  ):
    run(tmp_path, 'grid')
  run(tmp_path, 'search', trials=6)  # it can be extended
  check_once_each(6)
  with pytest.raises(UserError, match='already has 6 trials, more than the 5'):
    run(tmp_path, 'search', trials=5)
  (tmp_path / 'other').mkdir()
  (tmp_path / 'other' / 'photo.png').touch()
  with pytest.raises(UserError, match='holds no sweep, but is not empty'):
    run(tmp_path, workdir=str(tmp_path / 'other'))


@pytest.mark.usefixtures('no_plot')
def test_search_runs_each_setting_with_every_seed(tmp_path, monkeypatch):
  """Also settings that the sampler chooses."""
  monkeypatch.setattr(plans, 'STARTUP_TRIALS', 2)
  run(tmp_path, 'seeds', trials=3)
  check_once_each(6)
  table = gan_jax.load_sweep(tmp_path / 'sweep').over_seeds()
  assert table.seeds.tolist() == [2] * 3
  # Seeds 0 and 1 add 0 and 1 to a score: whatever the setting.
  assert table.deviation.tolist() == pytest.approx([math.sqrt(0.5)] * 3)
  assert len(set(table['optimizer.gen.learning_rate'])) == 3


@pytest.mark.usefixtures('no_plot')
def test_dry_run_starts_nothing(tmp_path, capsys):
  run(tmp_path, 'seeds', dry_run=True)
  lines = capsys.readouterr().out.splitlines()
  commands = [shlex.split(line) for line in lines if sweeps.FAKE in line]
  assert len(commands) == 2 * 10  # of 12 settings, the sampler chooses two
  assert commands[3][-1] == f'--workdir={tmp_path}/sweep/trials/0003'
  assert lines[-1].startswith('(4 more trials: the sampler chooses')
  assert not (tmp_path / 'sweep').exists()
  run(tmp_path, 'seeds', trials=1)
  table = gan_jax.load_sweep(tmp_path / 'sweep').trials
  printed = next(x for x in commands[0] if 'learning_rate' in x)
  rate = table['optimizer.gen.learning_rate'][0]
  assert float(printed.partition('=')[2]) == pytest.approx(rate)


def test_score_that_is_never_logged_raises(tmp_path):
  text = sweeps.EXPERIMENT.replace('gen/diversity', 'gen/diversty')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sweeps, 'EXPERIMENT', text)
    with pytest.raises(
      UserError, match=r'gen/diversty was never logged \(logged'
    ):
      run(tmp_path)


# Devices.


@pytest.mark.parametrize(
  ('gpus', 'count', 'expected'),
  [
    (['0', '1', '2', '3'], None, ['0', '1', '2', '3']),
    (['0', '1', '2', '3'], 2, ['0,1', '2,3']),
    (['5', '7', '8'], 2, ['5', '7']),
  ],
)
def test_gpus_are_divided_among_trials(monkeypatch, gpus, count, expected):
  monkeypatch.delenv('JAX_PLATFORMS')
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', ','.join(gpus))
  shares = local.device_shares(count)
  assert [share.env['CUDA_VISIBLE_DEVICES'] for share in shares] == expected
  with pytest.raises(UserError, match=f' machine has {len(gpus)}'):
    local.device_shares(len(gpus) + 1)


def test_tpu_chips_are_divided_among_trials(monkeypatch):
  monkeypatch.delenv('JAX_PLATFORMS')
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
  monkeypatch.setenv('TPU_VISIBLE_CHIPS', '0,1,2,3')
  pairs = local.device_shares(2)
  assert [share.env['TPU_VISIBLE_CHIPS'] for share in pairs] == ['0,1', '2,3']
  assert pairs[0].env['TPU_CHIPS_PER_PROCESS_BOUNDS'] == '1,2,1'
  # Otherwise processes of one host would form one run.
  assert '--num_processes=1' in pairs[0].flags
  assert pairs[0].flags != pairs[1].flags
  assert local.device_shares(1) == [local.DeviceShare('all', {})]


def test_cores_are_divided_among_trials(monkeypatch):
  monkeypatch.setattr(local, '_cores', lambda: [0, 1, 2, 3, 4])
  cores = lambda count: [
    list(share.cores) for share in local.device_shares(count)
  ]
  assert cores(None) == [[]]
  assert cores(2) == [[0, 2, 4], [1, 3]]
  assert cores(6) == [[0], [1], [2], [3], [4], [0]]


def test_trial_uses_only_its_cores(tmp_path):
  (core, *_) = sorted(os.sched_getaffinity(0))
  code = 'import os; print(sorted(os.sched_getaffinity(0)))'
  process = Process(
    [sys.executable, '-c', code], '', tmp_path / 'log', cores=[core]
  )
  wait_for(lambda: process.poll() is not None)
  assert process.poll() == (0, f'[{core}]')


@pytest.mark.slow
def test_soak(tmp_path):
  """Kills trials and drivers of real runs at random moments."""
  assert soak(tmp_path, kills=4, seed=1) == 2
