"""Kills a sweep repeatedly and compares it with undisturbed runs.

  python tests/soak_sweep.py [--kills=8] [--seed=0]

The sweep has four trials, two at a time. The script alternately kills a trial's
process and the driver, whose trials end with it, and repeats the command. At
the end each trial has finished once, and every array of its last checkpoint
equals that of an undisturbed run.
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

STEPS, BATCH = 1200, 16
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
        'total_images': {STEPS * BATCH},
        'checkpoint_every_images': {96 * BATCH},
        'log_every_steps': 8,
      }},
    }}
  }}
"""


def command(*flags):
  return [sys.executable, str(ROOT / 'launch.py'), *flags]


def running_trials(sweep):
  """Returns (process id, workdir) of each running trial."""
  found = []
  for file in Path('/proc').glob('[0-9]*/cmdline'):
    try:
      argv = file.read_bytes().decode().split('\0')
    except OSError:
      continue  # the process has just ended
    workdirs = [arg.removeprefix('--workdir=') for arg in argv if 'dir=' in arg]
    if workdirs and workdirs[0].startswith(f'{sweep}/trials/'):
      found.append((int(file.parent.name), Path(workdirs[0])))
  return found


def steps(workdir):
  """Returns the last logged iteration."""
  file = workdir / 'metrics.jsonl'
  lines = file.read_text().splitlines() if file.exists() else []
  return json.loads(lines[-2])['step'] if len(lines) > 1 else 0


def total_steps(sweep):
  return sum(map(steps, (sweep / 'trials').glob('*')))


def soak(folder, kills=8, seed=0):
  """Kills at random moments; returns how many kills hit the driver."""
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
    stdout=(folder / 'output').open('a'),
    stderr=subprocess.STDOUT,
  )
  driver = begin()
  for kill in range(kills):
    # The sweep makes progress between kills: a trial without progress fails.
    target = total_steps(sweep) + rng.randint(96, 2 * 96)
    while total_steps(sweep) < target or not running_trials(sweep):
      assert driver.poll() is None, (folder / 'output').read_text()
      time.sleep(0.05)
    time.sleep(rng.uniform(0, 0.3))
    if kill % 2:
      driver.kill()
      driver.wait()
      drivers += 1
      what = 'the driver'
      driver = begin()
    else:
      process, workdir = rng.choice(running_trials(sweep))
      os.kill(process, signal.SIGKILL)
      what = f'trial {int(workdir.name)} after iteration {steps(workdir)}'
    print(f'kill {kill + 1:2}: {what}', flush=True)
  assert driver.wait() == 0, (folder / 'output').read_text()
  compare(folder, sweep)
  return drivers


def compare(folder, sweep):
  """Compares arrays and scores of each trial with an undisturbed run."""
  sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]
  from runs import metrics, state_arrays

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
    workdir = sweep / row.workdir
    assert state_arrays(workdir, STEPS) == state_arrays(straight, STEPS)
    lines, undisturbed = metrics(workdir), metrics(straight)
    assert row.score == undisturbed[-1]['gen/diversity']
    # A preempted run writes its current log line, and so has more lines.
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
    f'{args.kills} kills, {drivers} of them of the driver: all trials equal '
    'the undisturbed runs bit for bit'
  )


if __name__ == '__main__':
  main()
