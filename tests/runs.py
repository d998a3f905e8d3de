"""Configs of experiments, and the content of workdirs, for tests."""

import json
import os
import runpy
import signal

import jax
import jax.numpy as jnp
import numpy as np
from conftest import ROOT
from tensorboard.backend.event_processing.event_accumulator import (
  EventAccumulator,
)

from experiments import toy
from gan_jax import games
from gan_jax.runs.run import Run
from gan_jax.training import checkpoint, loop


def config_path(name, arg=''):
  """Returns FILE.py[:ARGUMENT] of an experiment; 'toy:ring' names a toy."""
  file, _, toy = name.partition(':')
  argument = ','.join(filter(None, [toy, arg]))
  return f'experiments/{file}.py:{argument}'.removesuffix(':')


def get_config(name, arg=''):
  path, _, argument = config_path(name, arg).partition(':')
  return runpy.run_path(str(ROOT / path))['get_config'](argument)


FILES = sorted(
  path.stem
  for path in (ROOT / 'experiments').glob('*.py')
  if path.stem not in ('__init__', 'base')
)
EXPERIMENTS = [name for name in FILES if name != 'toy']
EXPERIMENTS += [f'toy:{name}' for name in toy.SOURCES]
# Each `:tiny` run once: (its config, the first experiment that has it).
TINY = {
  get_config(name, 'tiny').to_json(): name for name in reversed(EXPERIMENTS)
}


def evaluated_config(**changes):
  """Returns the `:tiny` config with two evaluations by pixels."""
  config = get_config('vanilla_mnist', 'tiny')
  config.evaluation.update(
    {
      'every_images': 16 * 12,
      'num_samples': 90,
      'metrics': ('fid', 'precision_recall', 'swd', 'ms_ssim'),
      'features': 'pixels',
      **changes,
    }
  )
  return config


def state_arrays(workdir, step):
  """Returns all arrays of the state of a step, as {name: bytes}."""
  state = checkpoint.read(workdir, checkpoint.STATE, step)
  leaves = jax.tree_util.tree_leaves_with_path(state)
  key_data = lambda x: (
    jax.random.key_data(x)
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
    else x
  )
  return {
    jax.tree_util.keystr(path): np.asarray(key_data(leaf)).tobytes()
    for path, leaf in leaves
  }


def metrics(workdir):
  """Returns the lines of `metrics.jsonl` without durations and speeds."""
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  lines = [json.loads(line) for line in lines]
  for line in lines:
    if line['images']:  # else nothing has been trained yet
      assert line.pop('images_per_second') > 0
    if any(name.startswith('eval/') for name in line):
      assert line.pop('eval/seconds') >= 0
  return lines


def logged_steps(workdir):
  """Returns the steps in TensorBoard."""
  events = EventAccumulator(
    str(workdir / 'tensorboard'), size_guidance={'scalars': 0}
  ).Reload()
  return [event.step for event in events.Scalars('gen/loss')]


def preempt_at(step, monkeypatch):
  """Sends SIGTERM in the dispatch that ends at `step`, of 4 steps each."""
  limit_in_flight, dispatches = loop.limit_in_flight, []

  def limit(pending):
    limit_in_flight(pending)
    dispatches.append(1)
    if 4 * len(dispatches) == step:
      os.kill(os.getpid(), signal.SIGTERM)

  monkeypatch.setattr(loop, 'limit_in_flight', limit)


def untrained_run(config, monkeypatch, step=0):
  """Returns a `Run` of freshly initialized players, without a workdir."""
  game = games.make(config)
  data = config.data
  sides = data.resolution, data.resolution, data.channels
  batch = {name: jnp.zeros((4, *sides)) for name in ('images', 'a', 'b')}
  batch['labels'] = jnp.zeros(4, jnp.int32)
  init = jax.jit(lambda key: game.init(key, batch)[0])
  variables = init(jax.random.key(1))
  content = {'ema': variables.gen, 'variables': variables._asdict()}
  monkeypatch.setattr(checkpoint, 'read', lambda *_: content)
  return Run('nowhere', config, step)
