"""Trains the GAN of an experiment file, or runs another mode on it.

  python launch.py --config=experiments/vanilla_mnist.py
  python launch.py --config=experiments/dcgan_celeba.py:tiny --workdir=DIR
  python launch.py --config=experiments/dcgan_celeba.py --config.batch_size=256
  python launch.py --config=experiments/vanilla_mnist.py --mode=sweep

The experiment's file lists the keys that can be overridden.
"""

# This file defines the flags and delegates: notebooks can import the rest.

import hashlib
import importlib
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

import gan_jax
from gan_jax import devices
from gan_jax.command_line import (
  LAB_EXPERIMENT,
  MODE_FLAGS,
  OUTPUT_CLOSED,
  check_compare,
  end_with_output,
  exit_now,
  is_output_closed,
  overrides,
  parse,
  print_error,
)
from gan_jax.config import CHANGEABLE, PER_MACHINE, differences, flatten
from gan_jax.errors import (
  DIVERGED,
  PREEMPTED,
  Diverged,
  Preempted,
  UserError,
)
from gan_jax.experiment_file import read_settings
from gan_jax.training import logfile, peers
from gan_jax.training.overrides import settle

# The values of `--mode`: functions of (config, workdir). They are imported when
# they are called, because the loader's processes import this file too.
MODES = {
  'train': 'gan_jax.training.loop:train',
  'prepare': 'gan_jax.modes.prepare:prepare',
  'preview': 'gan_jax.modes.preview:preview',
  'benchmark': 'gan_jax.modes.benchmark:benchmark',
  'compile': 'gan_jax.modes.compile:compile',
  'evaluate': 'gan_jax.modes.evaluate:evaluate',
  'sweep': 'gan_jax.sweep.sweep:sweep',
  'lab': 'gan_jax.lab.lab:lab',
}
# Modes on a finished run, which has its own config: functions of (workdir).
RUN_MODES = {
  'apply': 'gan_jax.modes.apply:apply',
  'film': 'gan_jax.modes.generate:film',
  'generate': 'gan_jax.modes.generate:generate',
}
RUNS = Path('runs')  # the folder of the default workdirs
_CONFIG = config_flags.DEFINE_config_file(
  'config',
  None,
  'The experiment: FILE.py or FILE.py:ARGUMENT. Each of its keys is a flag: '
  '--config.batch_size=128.',
)
_WORKDIR = flags.DEFINE_string(
  'workdir',
  None,
  'The folder of the run; an existing run resumes. Default: runs/EXPERIMENT, '
  'with a hash of the settings that differ from the file.',
)
_COORDINATOR = flags.DEFINE_string(
  'coordinator_address',
  None,
  'HOST:PORT of process 0, if the processes do not find each other.',
)
_NUM_PROCESSES = flags.DEFINE_integer(
  'num_processes', None, 'The number of processes of a distributed run.'
)
_PROCESS_ID = flags.DEFINE_integer(
  'process_id', None, 'The number of this process, from 0.'
)
_INIT = flags.DEFINE_string(
  'init',
  None,
  'Start a new run from these weights: the workdir of a run, or FILE.pkl of '
  'StyleGAN2-ADA or R3GAN. Short for --config.init.source.',
)
flags.DEFINE_string(
  'step',
  None,
  'With --mode=apply, evaluate, film or generate: the iteration of a '
  'checkpoint; with --mode=evaluate also best or all. Default: the newest '
  'checkpoint.',
)
flags.DEFINE_float(
  'truncation',
  None,
  'With --mode=evaluate, film or generate: truncate latents to this absolute '
  'value. Default: no truncation.',
)
flags.DEFINE_integer(
  'samples',
  None,
  'With --mode=generate: the number of samples of each seed (10,000). With '
  '--mode=film: the number of cells (16).',
)
flags.DEFINE_list(
  'seeds', None, 'With --mode=generate: SEED,SEED,...; with --mode=film: one.'
)
flags.DEFINE_list(
  'labels',
  None,
  'With --mode=generate or film, of a conditional run: the classes of the '
  'samples, in turn. Default: random classes.',
)
flags.DEFINE_string('input', None, 'With --mode=apply: the folder of images.')
flags.DEFINE_string(
  'to',
  None,
  'With --mode=apply: the set to translate to, a or b. Default: the main '
  'output.',
)
flags.DEFINE_string(
  'output',
  None,
  'With --mode=apply: a folder for PNG files. With --mode=generate: a folder '
  'for PNG files, or FILE.npz. With --mode=film: FILE.mp4, FILE.webp or '
  'FILE.gif. Default: in the workdir.',
)
flags.DEFINE_bool(
  'overwrite', None, 'With --mode=apply, generate or film: replace the output.'
)
flags.DEFINE_float(
  'seconds', None, 'With --mode=film: the length of the film. Default: 8.'
)
flags.DEFINE_bool(
  'trust',
  None,
  "With --mode=apply, generate or film: run the code that the run's config "
  'names.',
)
flags.DEFINE_string(
  'sweep',
  None,
  "With --mode=sweep: the name of one of the experiment's sweeps. Default: its "
  'only sweep.',
)
flags.DEFINE_integer(
  'trials', None, 'With --mode=sweep: the number of settings of a search.'
)
flags.DEFINE_bool(
  'dry_run', None, 'With --mode=sweep: only print the commands of the trials.'
)
flags.DEFINE_integer(
  'parallel_trials',
  None,
  'With --mode=sweep: the number of trials that run at the same time. Default: '
  'one for each accelerator, one without accelerators; on Ray, as many as fit.',
)
flags.DEFINE_string(
  'executor', None, 'With --mode=sweep: local (the default) or ray.'
)
flags.DEFINE_string(
  'address',
  None,
  'With --executor=ray: HOST:PORT of the cluster. Default: RAY_ADDRESS, or a '
  'cluster on this machine.',
)
flags.DEFINE_list(
  'resources',
  None,
  'With --executor=ray: what a trial occupies, NAME=NUMBER,... Default: GPU=1, '
  'or CPU=1 on a cluster without GPUs.',
)
flags.DEFINE_string(
  'topology', None, 'With --mode=compile: the TPU chips, such as v5e:4x4.'
)
flags.DEFINE_integer(
  'port', None, 'With --mode=lab: the port of the page. Default: 8642, or any.'
)
_COMPARE = flags.DEFINE_multi_string(
  'compare',
  None,
  'Compare the scores of these runs, WORKDIR,WORKDIR,..., the best first; or '
  'one flag for each WORKDIR. Only --score goes with it.',
)
_SCORE = flags.DEFINE_string(
  'score', 'fid', 'With --compare: the name of the score.'
)
_MODE = flags.DEFINE_enum('mode', 'train', [*MODES, *RUN_MODES], 'What to run.')


def main(argv: list[str]) -> None:
  """Runs the mode that `--mode` names; an error ends in its exit code."""
  logging.set_verbosity(logging.WARNING)  # Orbax logs every save
  try:
    _run(argv)
  except UserError as error:
    print_error(error)
    exit_now(DIVERGED if isinstance(error, Diverged) else 2, str(error))
  except Preempted as preempted:
    print(f'Preempted, {preempted}: repeat the command to resume.')
    exit_now(PREEMPTED)
  except KeyboardInterrupt as interrupt:
    state = str(interrupt) or 'nothing more was saved'
    print(f'Interrupted, {state}: repeat the command to resume.')
    exit_now(130, '' if str(interrupt) else 'interrupted')
  except Exception as error:
    if isinstance(error, BrokenPipeError) and is_output_closed():
      exit_now(OUTPUT_CLOSED, 'its output was closed')
    if not devices.is_distributed():
      raise
    # If another process was lost, the thread that watches the peers reports it
    # and ends this process meanwhile.
    time.sleep(peers.VERDICT_SECONDS)
    traceback.print_exc()
    exit_now(1, f'{type(error).__name__}: {error}')


def _run(argv: list[str]) -> None:
  if len(argv) > 1:
    raise UserError(f'unexpected argument {argv[1]!r}: flags begin with --')
  if _act_on_runs():
    pass
  elif _CONFIG.value is None:
    raise UserError('name an experiment: --config=experiments/vanilla_mnist.py')
  else:
    _run_mode()
  sys.stdout.flush()  # an error of the output is noticed here


def _run_mode() -> None:
  _join_processes()
  _apply_overrides()
  kwargs = _mode_arguments()
  workdir = os.path.expanduser(_WORKDIR.value or default_workdir())
  logfile.divert(workdir)
  if _MODE.value != 'sweep':
    peers.agree(_run_identity(workdir, kwargs))
  mode = _import(MODES[_MODE.value])
  mode(_CONFIG.value, workdir, **kwargs)
  peers.part()


def _import(name: str) -> Callable[..., Any]:
  module, _, function = name.partition(':')
  return getattr(importlib.import_module(module), function)


def _serve_lab() -> None:
  """Serves the lab, with the experiment of --config or a ring of Gaussians."""
  _apply_overrides()
  workdir = os.path.expanduser(_WORKDIR.value or str(RUNS / 'lab'))
  filename = config_flags.get_config_filename(flags.FLAGS['config'])
  story = 'two_players' if filename == LAB_EXPERIMENT else None
  lab = _import(MODES['lab'])
  lab(_CONFIG.value, workdir, story=story, **_mode_arguments())


def _act_on_runs() -> bool:
  """Does what needs no config but finished runs; returns whether it did."""
  check_compare()
  if _COMPARE.present:
    # One that contains a comma needs a flag of its own.
    several = len(_COMPARE.value) > 1
    workdirs = _COMPARE.value if several else _COMPARE.value[0].split(',')
    runs = gan_jax.compare(*workdirs, name=_SCORE.value)
    print(runs.to_string())
    return True
  if _MODE.value == 'lab':
    _serve_lab()
    return True
  if _MODE.value not in RUN_MODES:
    return False
  if _CONFIG.value is not None:
    raise UserError(
      f'--mode={_MODE.value} reads the config of the run: remove --config'
    )
  if _WORKDIR.value is None:
    raise UserError(f'--mode={_MODE.value} needs --workdir=RUN')
  workdir = os.path.expanduser(_WORKDIR.value)
  _import(RUN_MODES[_MODE.value])(workdir, **_mode_arguments())
  return True


def _join_processes() -> None:
  """Connects the processes of a distributed run, if there are several."""
  group = _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
  if _MODE.value != 'sweep':
    peers.join(*group)
    peers.watch()
  elif any(value is not None for value in group):
    raise UserError(
      'a sweep has one driver process: remove --coordinator_address, '
      '--num_processes and --process_id'
    )
  else:
    devices.use_cpu_only()  # the trials need the accelerators


def _run_identity(workdir: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the values that must be equal in all processes, by name."""
  config = {
    f'config.{key}': value
    for key, value in flatten(_CONFIG.value.to_dict()).items()
    if key not in PER_MACHINE
  }
  path = workdir if '://' in workdir else os.path.abspath(workdir)
  return {
    **{
      f'--{name}': value
      for name, value in kwargs.items()
      if name not in ('settings', 'latest')  # they follow from the config
    },
    **config,
    '--mode': _MODE.value,
    'workdir': path,
    **peers.versions(),
  }


def _mode_arguments() -> dict[str, Any]:
  """Returns the arguments of the mode besides the config and the workdir."""
  own = MODE_FLAGS.get(_MODE.value, ())
  for name in dict.fromkeys(sum(MODE_FLAGS.values(), ())):
    if flags.FLAGS[name].value is not None and name not in own:
      modes = [mode for mode, names in MODE_FLAGS.items() if name in names]
      raise UserError(f'--{name} needs --mode={" or ".join(modes)}')
  kwargs = {name: flags.FLAGS[name].value for name in own}
  if _MODE.value == 'train':
    latest = None if _WORKDIR.value else RUNS / 'latest'
    kwargs = {'settings': changed_settings(), 'latest': latest}
  if _MODE.value == 'sweep':
    kwargs |= {
      'launcher': __file__,
      'experiment': config_flags.get_config_filename(flags.FLAGS['config']),
      'overrides': overrides(),
    }
  return kwargs


def _apply_overrides() -> None:
  """Adapts the experiment's config to the overrides."""
  if _INIT.value is not None:
    with _CONFIG.value.unlocked():
      if 'init' not in _CONFIG.value:
        _CONFIG.value.init = ConfigDict()
      _CONFIG.value.init.source = _INIT.value
  for note in settle(_CONFIG.value, overrides()):
    if devices.is_main():
      print(f'Removed: {note}', flush=True)


def changed_settings() -> dict[str, Any]:
  """Returns the settings that differ from the experiment's file, by key."""
  filename = config_flags.get_config_filename(flags.FLAGS['config'])
  original = read_settings(filename)
  current = flatten(_CONFIG.value.to_dict())
  changes = differences(original, current, ignore=())
  return {key: value for key, _, value in changes}


def default_workdir() -> str:
  """Returns runs/EXPERIMENT[-ARGUMENT][-HASH]; a sweep adds -sweep[-NAME].

  A comma in ARGUMENT becomes a dash: `--compare` separates workdirs by commas.

  HASH is a hash of the settings that differ from the file, except those that
  may change when a run is resumed.
  """
  path, _, argument = config_flags.get_config_filename(
    flags.FLAGS['config']
  ).partition(':')
  changes = {
    key: value
    for key, value in changed_settings().items()
    if key not in CHANGEABLE
  }
  parts = [Path(path).stem, *argument.split(',')]
  if changes:
    text = json.dumps(changes, sort_keys=True)
    parts.append(hashlib.sha256(text.encode()).hexdigest()[:8])
  if _MODE.value == 'sweep':
    parts += ['sweep', flags.FLAGS['sweep'].value]
  name = '-'.join(filter(None, parts))
  return str(RUNS / re.sub(r'[^A-Za-z0-9._-]', '_', name))


if __name__ == '__main__':
  with end_with_output():
    app.run(main, flags_parser=parse)
