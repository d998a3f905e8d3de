"""Kills a sweep again and again, and ends with the runs that were never killed.

  python tests/soak_sweep.py [--kills=8] [--seed=0]

Four trials, two at a time. Every second kill is of a trial's process, every
other of the driver, whose trials leave with it; the same command goes on. At
the end each trial has come to its end once, and every array of its last
checkpoint is that of the same run which nothing disturbed.
"""

import argparse
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from soak import ROOT, environment

ROUNDS, BATCH = 1200, 16
EXPERIMENT = f"""
from experiments import vanilla_mnist

def get_config(arg=''):
  return vanilla_mnist.get_config('tiny')

def sweep():
  return {{
    'rates': {{
      'score': 'gen/diversity',
      'goal': 'max',
      'space': {{
        'optimizer.gen.learning_rate': [1e-4, 1e-3], 'seed': [0, 1],
      }},
      'fixed': {{
        'total_images': {ROUNDS * BATCH},
        'checkpoint_every_images': {96 * BATCH},
        'log_every_steps': 8,
      }},
    }}
  }}
"""


def command(*flags):
  return [sys.executable, str(ROOT / 'launch.py'), *flags]


def trials_that_run(sweep):
  """(process, its workdir) of each."""
  found = []
  for file in Path('/proc').glob('[0-9]*/cmdline'):
    try:
      told = file.read_bytes().decode().split('\0')
    except OSError:
      continue  # it has just left
    workdirs = [arg.removeprefix('--workdir=') for arg in told if 'dir=' in arg]
    if workdirs and workdirs[0].startswith(f'{sweep}/trials/'):
      found.append((int(file.parent.name), Path(workdirs[0])))
  return found


def steps(workdir):
  """The last iteration that was logged."""
  file = workdir / 'metrics.jsonl'
  lines = file.read_text().splitlines() if file.exists() else []
  return json.loads(lines[-2])['step'] if len(lines) > 1 else 0


def all_rounds(sweep):
  return sum(map(steps, (sweep / 'trials').glob('*')))


def soak(folder, kills=8, seed=0):
  """Kills at random moments; -> how many were of a driver."""
  (folder / 'swept.py').write_text(EXPERIMENT)
  sweep, rng, drivers = folder / 'sweep', random.Random(seed), 0
  arguments = command(
    '--config=swept.py', '--mode=sweep', '--parallel_trials=2',
    f'--workdir={sweep}',
  )  # fmt: skip
  begin = lambda: subprocess.Popen(
    arguments,
    cwd=folder,
    env={**environment(), 'PYTHONUNBUFFERED': '1'},
    stdout=(folder / 'said').open('a'),
    stderr=subprocess.STDOUT,
  )
  driver = begin()
  for kill in range(kills):
    # Between kills it gets on: a trial without that is given up.
    wanted = all_rounds(sweep) + rng.randint(96, 2 * 96)
    while all_rounds(sweep) < wanted or not trials_that_run(sweep):
      assert driver.poll() is None, (folder / 'said').read_text()
      time.sleep(0.05)
    time.sleep(rng.uniform(0, 0.3))
    if kill % 2:
      driver.kill()
      driver.wait()
      drivers += 1
      what = 'the driver'
      driver = begin()
    else:
      process, workdir = rng.choice(trials_that_run(sweep))
      os.kill(process, signal.SIGKILL)
      what = f'trial {int(workdir.name)} after iteration {steps(workdir)}'
    print(f'kill {kill + 1:2}: {what}', flush=True)
  assert driver.wait() == 0, (folder / 'said').read_text()
  compare(folder, sweep)
  return drivers


def compare(folder, sweep):
  """Every array of a trial, and its score, with those of a straight run."""
  sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]
  from runs import everything, metrics

  import gan_jax

  table = gan_jax.load_sweep(sweep).trials
  assert table.state.tolist() == ['done'] * 4
  for row in table.itertuples():
    straight = folder / f'straight{row.trial}'
    flags = shlex.split(row.command)[2:]
    subprocess.run(
      command(*flags, f'--workdir={straight}'),
      cwd=folder,
      env=environment(),
      check=True,
      capture_output=True,
    )
    there = sweep / row.workdir
    assert everything(there, ROUNDS) == everything(straight, ROUNDS)
    lines, undisturbed = metrics(there), metrics(straight)
    assert row.score == undisturbed[-1]['gen/diversity']
    # A run that is told to leave closes a line, and so has more of them.
    steps = [line['step'] for line in lines]
    assert steps == sorted(set(steps))
    assert set(steps) >= {line['step'] for line in undisturbed}


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--kills', type=int, default=8)
  parser.add_argument('--seed', type=int, default=0)
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    drivers = soak(Path(folder), args.kills, args.seed)
  print(
    f'{args.kills} kills, {drivers} of them of the driver: all trials are, bit '
    'for bit, the runs that were never killed'
  )


if __name__ == '__main__':
  main()
