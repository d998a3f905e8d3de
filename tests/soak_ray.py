"""Disturbs a sweep on a Ray cluster, and compares it with undisturbed runs.

  python tests/soak_ray.py [--trials=20]

The cluster has a head and two nodes on this machine, each with processes of its
own and room for two trials. While the sweep runs, all processes of a node are
killed, a node is added, and the driver is killed and started again. At the end
each trial has finished once, and every array of its last checkpoint equals that
of an undisturbed run.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import clusters
from soak import ROOT

sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]
# This sets the number of devices, of this process and of the nodes.
from runs import metrics, state_arrays  # noqa: E402

import gan_jax  # noqa: E402
from gan_jax import config as cfg  # noqa: E402
from gan_jax.training import loop  # noqa: E402

STEPS, BATCH, SAVE_STEPS = 400, 16, 40
EXPERIMENT = """
from experiments import vanilla_mnist

def get_config(arg=''):
  return vanilla_mnist.get_config('tiny')

def sweep():
  return {{
    'seeds': {{
      'score': 'gen/diversity',
      'goal': 'max',
      'space': {{'seed': list(range({trials}))}},
      'fixed': {{
        'total_images': {images},
        'checkpoint_every_images': {save},
        'log_every_steps': 8,
      }},
    }}
  }}
"""


def begin(folder, address):
  """Starts a driver."""
  flags = [
    '--config=swept.py', '--mode=sweep', f'--workdir={folder}/sweep',
    '--executor=ray', f'--address={address}', '--resources=chip=1',
  ]  # fmt: skip
  return subprocess.Popen(
    [sys.executable, str(ROOT / 'launch.py'), *flags],
    cwd=folder,
    env={**os.environ, 'PYTHONUNBUFFERED': '1'},
    stdout=(folder / 'output').open('a'),
    stderr=subprocess.STDOUT,
  )


def running(folder, pids=None):
  """Returns the trials that run now, among these processes if given."""
  found = []
  for file in Path('/proc').glob('[0-9]*/cmdline'):
    try:
      argv = file.read_bytes().decode().split('\0')
    except OSError:
      continue  # the process has just ended
    if pids is None or int(file.parent.name) in pids:
      start = f'--workdir={folder}/sweep/trials/'
      found += [int(arg[-4:]) for arg in argv if arg.startswith(start)]
  return found


def steps(folder, trial):
  """Returns the last logged iteration of a trial."""
  file = folder / 'sweep' / 'trials' / f'{trial:04}' / 'metrics.jsonl'
  lines = file.read_text().splitlines() if file.exists() else []
  return json.loads(lines[-2])['step'] if len(lines) > 1 else 0


def wait_for(condition, driver, folder):
  """Waits for a condition while the driver runs."""
  while not (found := condition()):
    assert driver.poll() is None, (folder / 'output').read_text()
    time.sleep(0.02)
  return found


def soak(folder, trials=20):
  """Disturbs a sweep; returns the trials that the lost node was running."""
  images, save = STEPS * BATCH, SAVE_STEPS * BATCH
  text = EXPERIMENT.format(trials=trials, images=images, save=save)
  (folder / 'swept.py').write_text(text)
  midway = lambda trial: SAVE_STEPS + 8 < steps(folder, trial) < STEPS - 8
  done = lambda: sum(steps(folder, i) >= STEPS - 8 for i in range(trials))
  with clusters.cluster() as cluster:
    one, _ = (clusters.add_node(cluster, chip=2) for _ in range(2))
    driver = begin(folder, cluster.address)
    on_one = lambda: running(folder, clusters.processes(one))
    wait_for(lambda: any(map(midway, on_one())), driver, folder)
    lost = on_one()
    reached = {trial: steps(folder, trial) for trial in lost}
    clusters.kill_node(one)
    print(f'node killed: trials after iterations {reached}', flush=True)
    clusters.add_node(cluster, chip=2)
    print('node added', flush=True)
    wait_for(lambda: done() >= trials // 2, driver, folder)
    wait_for(lambda: running(folder), driver, folder)
    driver.kill()
    driver.wait()
    print(f'driver killed, {done()} trials are done', flush=True)
    driver = begin(folder, cluster.address)
    assert driver.wait() == 0, (folder / 'output').read_text()
  compare(folder, trials)
  return lost


def compare(folder, trials):
  """Compares each trial with an undisturbed run."""
  table = gan_jax.load_sweep(folder / 'sweep').trials
  assert table.state.tolist() == ['done'] * trials
  assert table.seed.tolist() == list(range(trials))
  for row in table.itertuples():
    workdir, straight = folder / 'sweep' / row.workdir, folder / f'{row.trial}'
    loop.train(cfg.read(workdir), straight)
    assert state_arrays(workdir, STEPS) == state_arrays(straight, STEPS)
    assert row.score == metrics(straight)[-1]['gen/diversity']
    # No iteration is logged twice.
    logged = [line['step'] for line in metrics(workdir)]
    assert logged == sorted(set(logged))


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--trials', type=int, default=20)
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    lost = soak(Path(folder), args.trials)
  print(
    f'{args.trials} trials, {len(lost)} of them on the lost node: all equal '
    'the undisturbed runs bit for bit'
  )


if __name__ == '__main__':
  main()
