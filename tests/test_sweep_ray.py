"""Tests of sweeps on real Ray clusters of several nodes on this machine."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys

import clusters
import pytest
import soak_ray
import sweeps
import yaml
from conftest import ROOT
from sweeps import check_once_each, drive, events, run, steps, wait_for

import gan_jax
from gan_jax.errors import UserError
from gan_jax.sweep import ray_cluster, report

RAY = {'executor': 'ray', 'parallel_trials': None, 'resources': ['chip=1']}


@pytest.fixture(autouse=True)
def events_file(tmp_path, monkeypatch):
  monkeypatch.setenv('EVENTS', str(tmp_path / 'events'))
  monkeypatch.setattr(report, 'write_plot', lambda *_: None)


def test_invalid_ray_flags_raise(tmp_path, monkeypatch):
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


def test_dry_run_needs_no_cluster(tmp_path, capsys):
  ray = {**RAY, 'address': 'localhost:1', 'resources': ['TPU=4', 'CPU=8']}
  run(tmp_path, **ray, dry_run=True)
  printed = capsys.readouterr().out
  assert 'Ray at localhost:1, each trial with TPU=4, CPU=8' in printed
  assert f'--workdir={tmp_path}/sweep/trials/0003' in printed


@pytest.mark.slow
def test_sweep_survives_faults_of_the_cluster(tmp_path, monkeypatch):
  """A node is lost, a node is added, and the driver is killed."""
  monkeypatch.setenv('PAUSE', '0.2')
  with clusters.cluster() as cluster:
    one, _ = (clusters.add_node(cluster, chip=2) for _ in range(2))
    ray = {**RAY, 'address': cluster.address}
    with drive(tmp_path, 'twenty', **ray) as driver:
      wait_for(lambda: len(events('end')) >= 2, 120)
      wait_for(lambda: midway(tmp_path, clusters.processes(one)), 60)
      pids = clusters.kill_node(one)
      lost = {e['trial_id'] for e in events('begin') if e['pid'] in pids}
      lost -= {e['trial_id'] for e in events('end')}
      note_ends(pids)
      assert lost
      clusters.add_node(cluster, chip=2)
      wait_for(lambda: len(events('end')) >= 8, 120)
      driver.kill()
      driver.stdout.read()
    begun_before = len(events('begin'))
    with drive(tmp_path, 'twenty', **ray) as driver:
      printed = driver.stdout.read()
    assert driver.returncode == 0, printed
  check_once_each(20)
  # The trials of the lost node resumed; a killed driver interrupts none.
  begun = [event['trial_id'] for event in events('begin')]
  assert {i for i in begun if begun.count(i) > 1} == lost
  assert any(e['step'] for e in events('begin') if e['trial_id'] in lost)
  assert len(begun) > begun_before
  for trial_id in range(20):
    assert steps(tmp_path, trial_id) == list(range(1, 31))
  table = gan_jax.load_sweep(tmp_path / 'sweep').trials
  assert table.state.tolist() == ['done'] * 20
  assert table.score.tolist() == [1 + seed for seed in range(20)]


@pytest.mark.slow
def test_real_trials_equal_undisturbed_runs(tmp_path):
  """Bit for bit, although nodes and the driver are killed."""
  assert soak_ray.soak(tmp_path, trials=6)


@pytest.mark.slow
def test_trial_occupies_a_tpu_slice(tmp_path, monkeypatch):
  """Each of two hosts runs a process; the slice runs one trial at a time."""
  with clusters.cluster() as cluster:
    monkeypatch.setenv('TPU_NAME', 'slice')
    monkeypatch.setenv('TPU_ACCELERATOR_TYPE', 'v4-16')
    for host, head in enumerate(({'TPU-v4-16-head': 1}, {})):
      monkeypatch.setenv('TPU_WORKER_ID', f'{host}')
      clusters.add_node(cluster, **{'slice': 1, 'TPU': 4, **head})
    monkeypatch.delenv('TPU_WORKER_ID')
    resources = ['TPU-v4-16-head=1', 'TPU=4']
    ray = {**RAY, 'address': cluster.address, 'resources': resources}
    with drive(tmp_path, **ray) as driver:
      printed = driver.stdout.read()
  assert driver.returncode == 0, printed
  check_once_each(4)
  assert sweeps.max_parallel() == 1
  assert sorted(e['trial_id'] for e in events('follow')) == [0, 1, 2, 3]


def midway(folder, pids):
  """Returns whether a trial of these processes has saved and still runs."""
  ended = {event['pid'] for event in events('end')}
  checkpoint_of = lambda i: (
    folder / f'sweep/trials/{i:04}/checkpoints/iteration'
  )
  return any(
    checkpoint_of(event['trial_id']).exists()
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


# The page on clusters.


PAGE = (ROOT / 'docs' / 'how_to' / 'clusters.md').read_text()


def block(language):
  """Returns the code block of the page in a language."""
  return re.search(rf'^```{language}\n(.*?)^```', PAGE, re.M | re.S)[1]


def printed_by(arguments, folder):
  """Returns what the page's command prints in a dry run, in a folder."""
  command = [sys.executable, str(ROOT / 'launch.py'), *arguments, '--dry_run']
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert not list(folder.iterdir())
  return done.stdout.splitlines()


def test_kubernetes_manifest_of_the_docs_is_valid(tmp_path):
  """So is its command, whose output is on the page."""
  job = yaml.safe_load(block('yaml'))
  assert (job['apiVersion'], job['kind']) == ('ray.io/v1', 'RayJob')
  cluster = job['spec']['rayClusterSpec']
  (group,) = cluster['workerGroupSpecs']
  pods = cluster['headGroupSpec']['template'], group['template']
  for pod in pods:
    (container,) = pod['spec']['containers']
    mounts = {mount['name'] for mount in container['volumeMounts']}
    assert mounts == {volume['name'] for volume in pod['spec']['volumes']}
  words = shlex.split(job['spec']['entrypoint'])
  assert words[:5] == ['cd', '/gan_jax', '&&', 'python', 'launch.py']
  assert f'--parallel_trials={group["maxReplicas"]}' in words
  # A trial fits on a worker.
  limits = container['resources']['limits']
  (resources,) = (word for word in words if 'resources' in word)
  gpus, cpus = (int(x.rpartition('=')[2]) for x in resources.split(','))
  assert gpus <= int(limits['nvidia.com/gpu'])
  assert cpus <= int(limits['cpu'])
  # The page shows it with the address of its first command.
  printed = printed_by([*words[5:], '--address=HEAD:6379'], tmp_path)
  (listing,) = re.findall(r'```\n(Sweep: .*?)```', PAGE, re.S)
  assert listing.splitlines() == [
    x for x in printed if x in listing.splitlines()
  ]
  commands = [line for line in printed if line.startswith('python launch.py')]
  assert len(commands) == 10
  assert commands[9].endswith('--workdir=/shared/rates/trials/0009')


def slurm(folder, **changes):
  """Writes the page's script, and a Slurm of one node; returns the script."""
  script = block('bash')
  for old, new in changes.items():
    script = script.replace(old, new)
  (folder / 'rates.sh').write_text(script)
  programs = folder / 'bin'
  programs.mkdir()
  for name, text in {
    'srun': 'exec "$@"',
    'scontrol': 'echo 127.0.0.1',
    'python': f'exec {sys.executable} "$@"',
  }.items():
    (programs / name).write_text(f'#!/bin/sh\n{text}\n')
    (programs / name).chmod(0o755)
  return folder / 'rates.sh'


def test_slurm_script_of_the_docs_is_valid(tmp_path):
  """So is its command."""
  script = slurm(tmp_path)
  subprocess.run(['bash', '-n', script], check=True)
  text = script.read_text().replace('\\\n', ' ')
  (line,) = (x for x in text.splitlines() if 'launch.py' in x)
  ray, _, command = line.partition(' -- ')
  assert shlex.split(ray)[:3] == ['srun', 'ray', 'symmetric-run']
  words = shlex.split(command)
  assert words[:2] == ['python', 'launch.py']
  out = tmp_path / 'out'
  out.mkdir()
  words = [word.replace('$HOME', str(out)) for word in words[2:]]
  assert f'Workdir:  {out}/rates' in printed_by(words, out)


@pytest.mark.slow
def test_slurm_script_of_the_docs_runs(tmp_path):
  """With srun and scontrol of one node: Ray starts, runs and ends."""
  swept = sweeps.arguments(tmp_path)['experiment']
  script = slurm(
    tmp_path,
    **{
      'experiments/dcgan_celeba.py': f'{swept} --sweep=grid',
      '$HOME/rates': f'{tmp_path}/sweep',
    },
  )
  environment = {
    **os.environ,
    **clusters.QUIET,
    'PATH': f'{tmp_path}/bin:{os.environ["PATH"]}',
    'PYTHONPATH': str(ROOT),
    'SLURM_JOB_NODELIST': 'node',
    'SLURM_JOB_NUM_NODES': '1',
  }
  done = subprocess.run(
    ['bash', script], cwd=ROOT, env=environment, capture_output=True, text=True
  )
  assert '4 trials: 4 done' in done.stdout, done.stdout + done.stderr
  table = gan_jax.load_sweep(tmp_path / 'sweep').trials
  assert table.state.tolist() == ['done'] * 4
