"""Trials on TPU slices, with a fake gcloud (fake_gcloud.py)."""

import json
import os
import shlex
import shutil
import stat
import sys

import pytest
import sweeps
from conftest import ROOT
from sweeps import check_once_each, events, run, wait_for

import gan_jax
from gan_jax.errors import UserError
from gan_jax.sweep import report, tpu

TPU = {'executor': 'tpu', 'zone': 'us-x1-b', 'parallel_trials': None}


@pytest.fixture
def slices(tmp_path, monkeypatch):
  """Makes slices with these names; the code on each host is in ~/my code."""
  programs = tmp_path / 'bin'
  programs.mkdir()
  for name, target in (
    ('gcloud', f'{ROOT}/tests/fake_gcloud.py'),
    ('python', ''),
  ):
    file = programs / name
    file.write_text(f'#!/bin/sh\nexec {sys.executable} {target} "$@"\n')
    file.chmod(file.stat().st_mode | stat.S_IEXEC)
  monkeypatch.setenv('PATH', f'{programs}{os.pathsep}{os.environ["PATH"]}')
  monkeypatch.setenv('SLICES', str(tmp_path / 'slices'))
  monkeypatch.setenv('EVENTS', str(tmp_path / 'events'))
  monkeypatch.setattr(report, 'write_plot', lambda *_: None)
  (tmp_path / 'slices').mkdir()

  def make(*names):
    for name in names:
      for host in ('host0', 'host1'):
        code = tmp_path / 'slices' / name / host / 'my code'
        code.mkdir(parents=True)
        shutil.copy(sweeps.FAKE, code / 'launch.py')
    return {**TPU, 'slices': names, 'remote': "cd 'my code'"}

  return make


def calls(folder):
  lines = (folder / 'slices' / 'calls').read_text().splitlines()
  return list(map(json.loads, lines))


def states(folder):
  return gan_jax.load_sweep(folder / 'sweep').trials.state.tolist()


def test_each_slice_runs_one_trial(tmp_path, slices):
  """On all its hosts, one trial at a time, with the flags as typed."""
  odd = {'data.source': "folder:/my photos/it's $HOME; `date`"}
  run(tmp_path, **slices('one', 'two'), overrides=odd)
  check_once_each(4)
  by_slice = {'one': 0, 'two': 0}
  for name in by_slice:
    by_slice[name] = sum('launch.py' in str(call) and name in call
                         for call in calls(tmp_path))  # fmt: skip
  assert sum(by_slice.values()) == 4
  assert min(by_slice.values()) >= 1
  assert sweeps.max_parallel() == 2
  for call in calls(tmp_path):
    assert call[:4] == ['compute', 'tpus', 'tpu-vm', 'ssh']
    assert call[5:7] == ['--zone=us-x1-b', '--worker=all']
  source = f'--config.data.source={odd["data.source"]}'
  for event in events('begin'):
    assert source in event['argv']
  assert gan_jax.load_sweep(tmp_path / 'sweep').trials.score.tolist() == [
    1, 2, 2, 3,
  ]  # fmt: skip


def test_diverged_and_failed_trials_on_slices(tmp_path, slices, monkeypatch):
  monkeypatch.setenv('MANNERS', '{"0": "diverge", "3": "fail"}')
  run(tmp_path, **slices('one', 'two'))
  assert states(tmp_path) == ['diverged', 'done', 'done', 'failed']
  reasons = gan_jax.load_sweep(tmp_path / 'sweep').trials.reason.tolist()
  assert reasons[0] == 'gen/loss not finite at iteration 12'
  assert reasons[3] == "ValueError: it's the config"


def test_a_bad_trial_on_a_slice_is_pruned(tmp_path, slices, monkeypatch):
  monkeypatch.setenv('PAUSE', '0.05')
  run(tmp_path, 'pruned', **slices('one'))
  assert states(tmp_path) == ['done', 'done', 'pruned', 'pruned']
  codes = [event['code'] for event in events('end')]
  assert codes == [0, 0, 75, 75]


def test_a_slice_that_vanishes(tmp_path, slices, monkeypatch, capsys):
  """Its trial resumes on the other slice, which runs all later trials."""
  import threading

  monkeypatch.setenv('PAUSE', '0.05')
  kwargs = slices('one', 'two')

  def vanish():
    wait_for(lambda: any(e['slice'] == 'two' for e in events('begin')))
    (event,) = (e for e in events('begin') if e['slice'] == 'two')
    lost.append(event['trial_id'])
    wait_for(lambda: (tmp_path / f'sweep/trials/{event["trial_id"]:04}/'
                      'checkpoints/iteration').exists())  # fmt: skip
    shutil.rmtree(tmp_path / 'slices' / 'two', ignore_errors=True)

  lost = []
  thread = threading.Thread(target=vanish)
  thread.start()
  run(tmp_path, **kwargs)
  thread.join()
  assert states(tmp_path) == ['done'] * 4
  begun = [e for e in events('begin') if e['trial_id'] == lost[0]]
  assert [e['slice'] for e in begun] == ['two', 'one']
  assert begun[1]['step'] >= 5
  assert 'two has vanished (ERROR: (gcloud' in capsys.readouterr().err
  with pytest.raises(UserError, match='NOT_FOUND'):
    shutil.rmtree(tmp_path / 'slices' / 'one')
    run(tmp_path, **kwargs)


def test_a_left_over_trial_is_stopped_first(tmp_path, slices, monkeypatch):
  """A trial outlives its killed driver; the next driver stops it first."""
  monkeypatch.setenv('PAUSE', '0.3')
  kwargs = slices('one')
  with sweeps.drive(tmp_path, **kwargs) as driver:
    wait_for(lambda: len(events('begin')) == 1)
    driver.kill()
    driver.stdout.read()
  assert not events('end')
  monkeypatch.setenv('PAUSE', '0.01')
  run(tmp_path, **kwargs)
  check_once_each(4)
  assert [e['code'] for e in events('end')] == [75, 0, 0, 0, 0]
  again = [e['step'] for e in events('begin') if e['trial_id'] == 0]
  assert again[0] == 0 < again[1]


@pytest.mark.parametrize(
  ('codes', 'expected'),
  [
    (
      (134, 137),
      137,
    ),  # the run was killed on one host and aborted on the other
    ((134, 3), 3),
    ((1, 1), 1),
    ((255, 255), 255),
  ],
)
def test_hosts_with_different_exit_codes(tmp_path, slices, codes, expected):
  """gcloud returns one host's code; the code that explains the end counts."""
  lines = ''.join(
    f'echo "##### Command execution on worker {host} failed with exit status '
    f'{code}. Continuing." >&2\n'
    for host, code in enumerate(codes)
  )
  gcloud = tmp_path / 'bin' / 'gcloud'
  gcloud.write_text(
    f'#!/bin/sh\ncase "$*" in *launch.py*)\n echo it broke\n{lines} '
    f'exit {codes[0]};;\nesac\n'
  )
  (worker,) = tpu.make_workers(['one'], None, 'cd x', None)
  running = worker.start(['--a=b'], tmp_path / 'log')
  statuses = []
  wait_for(lambda: statuses.append(running.poll()) or statuses[-1])
  assert statuses[-1] == (expected, 'it broke', False)


def test_mistakes(tmp_path, slices, monkeypatch):
  with pytest.raises(UserError, match='needs --slices=NAME,NAME'):
    run(tmp_path, **TPU)
  with pytest.raises(
    UserError, match='trials=3 needs as many slices, but --slices names 2'
  ):
    run(tmp_path, **{**slices('a', 'b'), 'parallel_trials': 3})
  with pytest.raises(
    UserError, match='=runs/x is a folder of this machine: name a'
  ):
    run(tmp_path, **{**slices('c'), 'workdir': 'runs/x'})
  with pytest.raises(UserError, match="nodes/nowhere' was not found"):
    run(tmp_path, **{**TPU, 'slices': ('nowhere',)})
  monkeypatch.setenv('PATH', '/nowhere')
  with pytest.raises(UserError, match='needs gcloud on the PATH'):
    run(tmp_path, **{**TPU, 'slices': ('a',)})


def test_the_command_is_printed_as_it_is_typed(tmp_path, slices, capsys):
  run(tmp_path, **slices('one'), dry_run=True)
  lines = capsys.readouterr().out.splitlines()
  first, *_ = (shlex.split(line) for line in lines if 'gcloud' in line)
  assert first[:6] == ['gcloud', 'compute', 'tpus', 'tpu-vm', 'ssh', 'one']
  assert first[-1].startswith("--command=cd 'my code' && exec 9>")
  assert not (tmp_path / 'slices' / 'calls').exists()
  assert tpu.script('cd x', ["--a=it's"]).endswith(
    """&& exec python launch.py '--a=it'"'"'s'"""
  )
