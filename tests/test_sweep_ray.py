"""Sweeps on real Ray clusters of several nodes on this machine."""

import json
import os
import signal

import clusters
import pytest
import sweeps
from sweeps import check_once_each, drive, events, run, steps, wait_for

import gan_jax
from gan_jax.errors import UserError
from gan_jax.sweep import ray_cluster, report

RAY = {'executor': 'ray', 'parallel_trials': None, 'resources': ['chip=1']}


@pytest.fixture(autouse=True)
def events_file(tmp_path, monkeypatch):
  monkeypatch.setenv('EVENTS', str(tmp_path / 'events'))
  monkeypatch.setattr(report, 'write_plot', lambda *_: None)


def test_mistakes(tmp_path, monkeypatch):
  ray = {**RAY, 'address': 'localhost:1'}
  with pytest.raises(UserError, match='=runs/x is a folder of this machine'):
    run(tmp_path, **{**ray, 'workdir': 'runs/x'})
  for text in ('GPU', 'GPU=x', 'GPU=0', '=1'):
    with pytest.raises(UserError, match=f'={text} must be NAME=NUMBER'):
      run(tmp_path, **{**ray, 'resources': [text]})
  with pytest.raises(UserError, match='add TPU=CHIPS'):
    run(tmp_path, **{**ray, 'resources': ['TPU-v4-16-head=1']})
  with pytest.raises(UserError, match='need --executor=ray'):
    run(tmp_path, address='localhost:1')
  monkeypatch.setattr(ray_cluster.importlib.util, 'find_spec', lambda _: None)
  with pytest.raises(UserError, match=r"pip install -e '.\[ray\]'"):
    run(tmp_path, **ray)
  assert not (tmp_path / 'sweep').exists()


def test_a_dry_run_needs_no_cluster(tmp_path, capsys):
  ray = {**RAY, 'address': 'localhost:1', 'resources': ['TPU=4', 'CPU=8']}
  run(tmp_path, **ray, dry_run=True)
  printed = capsys.readouterr().out
  assert 'Ray at localhost:1, each trial with TPU=4, CPU=8' in printed
  assert f'--workdir={tmp_path}/sweep/trials/0003' in printed


@pytest.mark.slow
def test_faults_of_a_cluster(tmp_path, monkeypatch):
  """A node is lost, a node is added, and the driver is killed."""
  monkeypatch.setenv('PAUSE', '0.2')
  with clusters.cluster() as cluster:
    one, _ = (clusters.add_node(cluster, chip=2) for _ in range(2))
    ray = {**RAY, 'address': cluster.address}
    with drive(tmp_path, 'twenty', **ray) as driver:
      wait_for(lambda: len(events('end')) >= 2, 120)
      wait_for(lambda: midway(tmp_path, clusters.processes(one)), 60)
      doomed = clusters.kill_node(one)
      lost = {e['trial_id'] for e in events('begin') if e['pid'] in doomed}
      lost -= {e['trial_id'] for e in events('end')}
      note_ends(doomed)
      assert lost
      clusters.add_node(cluster, chip=2)
      wait_for(lambda: len(events('end')) >= 8, 120)
      driver.kill()
      driver.stdout.read()
    between = len(events('begin'))
    with drive(tmp_path, 'twenty', **ray) as driver:
      printed = driver.stdout.read()
    assert driver.returncode == 0, printed
  check_once_each(20)
  # The trials of the lost node resumed; a killed driver interrupts none.
  begun = [event['trial_id'] for event in events('begin')]
  assert {i for i in begun if begun.count(i) > 1} == lost
  assert any(e['step'] for e in events('begin') if e['trial_id'] in lost)
  assert len(begun) > between
  for trial_id in range(20):
    assert steps(tmp_path, trial_id) == list(range(1, 31))
  table = gan_jax.load_sweep(tmp_path / 'sweep').trials
  assert table.state.tolist() == ['done'] * 20
  assert table.score.tolist() == [1 + seed for seed in range(20)]


def midway(folder, pids):
  """Returns whether a trial of these processes has saved, and runs on."""
  ended = {event['pid'] for event in events('end')}
  of = lambda i: folder / f'sweep/trials/{i:04}/checkpoints/iteration'
  return any(
    of(event['trial_id']).exists()
    for event in events('begin')
    if event['pid'] in pids and event['pid'] not in ended
  )


def note_ends(pids):
  """Records the ends of killed trials, which cannot do so themselves."""
  ended = {event['pid'] for event in events('end')}
  for event in events('begin'):
    if event['pid'] in pids and event['pid'] not in ended:
      with open(os.environ['EVENTS'], 'a') as file:
        line = {**event, 'what': 'end', 'code': -signal.SIGKILL}
        file.write(json.dumps(line | {'time': sweeps.time.time()}) + '\n')
