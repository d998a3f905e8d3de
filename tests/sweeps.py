"""Runs sweeps of trials that train nothing (fake_launch.py)."""

import collections
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from conftest import ROOT
from runs import get_config

FAKE = str(ROOT / 'tests' / 'fake_launch.py')

EXPERIMENT = """
from experiments import vanilla_mnist

def get_config(arg=''):
  return vanilla_mnist.get_config('tiny')

def sweep():
  rates = {'low': 1e-4, 'high': 1e-2, 'log': True}
  of = {'score': 'gen/diversity', 'goal': 'min'}
  key = 'optimizer.gen.learning_rate'
  return {
    'grid': {**of, 'space': {key: [0.001, 0.002], 'seed': [0, 1]}},
    'pruned': {
      **of, 'space': {key: [0.001, 0.002, 0.003, 0.9]}, 'keep_pruned': False,
      'pruner': {'name': 'median', 'startup_trials': 2, 'warmup_images': 64},
    },
    'search': {**of, 'trials': 4, 'space': {key: rates}},
    'seeds': {**of, 'trials': 12, 'space': {key: rates, 'seed': [0, 1]}},
    'many': {**of, 'space': {'seed': list(range(8))}},
    'population': {
      **of, 'space': {key: {'low': 1e-4, 'high': 1e-2, 'log': True}},
      'fixed': {'total_images': 384},
      'population': {'size': 4, 'interval_images': 128},
    },
    'twenty': {
      **of, 'space': {'seed': list(range(20))}, 'fixed': {key: 0.001},
    },
  }
"""

# The program of a driver. (launch.py itself takes seconds longer.)
DRIVER = """
import json, sys
from gan_jax.errors import Preempted, UserError
from gan_jax.sweep.sweep import sweep
from runs import get_config

kwargs = json.loads(sys.argv[1])
try:
  sweep(get_config('vanilla_mnist', 'tiny'), **kwargs)
except UserError as error:
  sys.exit(f'{error}')
except Preempted:
  sys.exit(75)
except KeyboardInterrupt:
  sys.exit(130)
"""


def arguments(folder, name='grid', **more):
  """Writes an experiment; returns the arguments of a sweep in FOLDER/sweep."""
  file = folder / 'swept.py'
  file.write_text(EXPERIMENT)
  return {
    'workdir': str(folder / 'sweep'),
    'launcher': FAKE,
    'experiment': str(file),
    'overrides': {},
    'sweep': name,
    'parallel_trials': 2,
    **more,
  }


def run(folder, name='grid', **more):
  """Runs a sweep in this process."""
  from gan_jax.sweep.sweep import sweep

  config = get_config('vanilla_mnist', 'tiny')
  sweep(config, **arguments(folder, name, **more))


def plans(experiment, name):
  """Makes the plan of a sweep."""
  from gan_jax.sweep import plan

  return plan.make(experiment, get_config(name), {})


def drive(folder, name='grid', **more):
  """Starts a sweep in a process of its own."""
  paths = [str(ROOT), str(ROOT / 'tests')]
  return subprocess.Popen(
    [sys.executable, '-c', DRIVER, json.dumps(arguments(folder, name, **more))],
    env={**os.environ, 'PYTHONPATH': os.pathsep.join(paths)},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def events(what=None):
  """Returns the events that the trials recorded, in order."""
  file = Path(os.environ['EVENTS'])
  lines = file.read_text().splitlines() if file.exists() else []
  found = [json.loads(line) for line in lines]
  return [event for event in found if what in (None, event['what'])]


def wait_for(condition, seconds=120):
  deadline = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < deadline, events()
    time.sleep(0.02)


def kill_running(number=signal.SIGKILL):
  """Kills a running trial; returns its id."""
  ended = {event['pid'] for event in events('end')}
  event = next(e for e in events('begin') if e['pid'] not in ended)
  os.kill(event['pid'], number)
  with open(os.environ['EVENTS'], 'a') as file:
    line = {**event, 'what': 'end', 'code': -number, 'time': time.time()}
    file.write(json.dumps(line) + '\n')
  return event['trial_id']


def max_parallel(key=lambda event: 0):
  """Returns how many trials with the same `key` ran at once, at most."""
  running, most = collections.Counter(), 0
  noted = events('begin') + events('end')
  for event in sorted(noted, key=lambda e: (e['time'], e['what'] == 'begin')):
    running[key(event)] += 1 if event['what'] == 'begin' else -1
    most = max(most, *running.values())
  return most


def check_once_each(num_trials):
  """Checks that every trial finished once, and never ran twice at a time."""
  ended = [event['trial_id'] for event in events('end') if event['code'] == 0]
  assert sorted(ended) == list(range(num_trials))
  assert max_parallel(key=lambda event: event['trial_id']) == 1


def steps(folder, trial_id):
  """Returns the iterations in a trial's metrics."""
  file = folder / 'sweep' / 'trials' / f'{trial_id:04}' / 'metrics.jsonl'
  return [json.loads(line)['step'] for line in file.read_text().splitlines()]
