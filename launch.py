"""Trains the GAN of an experiment file, or runs another mode on it.

  python launch.py --config=experiments/vanilla_mnist.py
  python launch.py --config=experiments/dcgan_celeba.py:tiny --workdir=DIR
  python launch.py --config=experiments/dcgan_celeba.py --config.batch_size=256
  python launch.py --config=experiments/vanilla_mnist.py --mode=sweep

The experiment's file lists the keys that can be overridden.
"""

# This file only parses flags and delegates: notebooks can import the rest.

import contextlib
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
from ml_collections import config_flags

import gan_jax
from gan_jax import devices
from gan_jax.bounds import bound_of
from gan_jax.config import (
  CHANGEABLE,
  PER_MACHINE,
  check_key,
  differences,
  flatten,
)
from gan_jax.errors import (
  DIVERGED,
  PREEMPTED,
  Diverged,
  Preempted,
  UserError,
  suggest,
)
from gan_jax.training import logfile, peers
from gan_jax.training.experiment import read_experiment
from gan_jax.training.overrides import settle

# The values of `--mode`: functions of (config, workdir). They are imported when
# they are called, because the loader's processes import this file too.
MODES = {
  'train': 'gan_jax.training.loop:train',
  'prepare': 'gan_jax.modes.prepare:prepare',
  'preview': 'gan_jax.modes.preview:preview',
  'benchmark': 'gan_jax.modes.benchmark:benchmark',
  'evaluate': 'gan_jax.modes.evaluate:evaluate',
  'sweep': 'gan_jax.sweep.drive:sweep',
  'lab': 'gan_jax.lab.lab:lab',
}
# What a flag expects, by the name that the flags library gives its type.
EXPECTED = {
  'bool': 'True or False',
  'float': 'a number',
  'int': 'an integer',
  'multi tuple': 'a tuple',
}
# Modes on a finished run, which has its own config: functions of (workdir).
RUN_MODES = {
  'film': 'gan_jax.modes.generate:film',
  'generate': 'gan_jax.modes.generate:generate',
}
RUNS = Path('runs')  # the folder of the default workdirs
# The experiment of the lab, if none is named.
LAB_EXPERIMENT = f'{Path(__file__).parent / "experiments" / "toy.py"}:ring'
# Flags of some modes only.
MODE_FLAGS = {
  'evaluate': ('step', 'truncation'),
  'film': (
    'labels', 'output', 'overwrite', 'samples', 'seconds', 'seeds', 'step',
    'truncation', 'trust',
  ),
  'generate': (
    'labels', 'output', 'overwrite', 'samples', 'seeds', 'step', 'truncation',
    'trust',
  ),
  'sweep': (
    'sweep', 'trials', 'dry_run', 'storage', 'parallel_trials', 'executor',
    'slices', 'zone', 'remote',
  ),
  'lab': ('port',),
}  # fmt: skip

# All flags of this program, to suggest one for a misspelt flag.
FLAGS = (
  'config', 'workdir', 'mode', 'compare', 'score', 'coordinator_address',
  'num_processes', 'process_id', *dict.fromkeys(sum(MODE_FLAGS.values(), ())),
)  # fmt: skip

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
flags.DEFINE_string(
  'step',
  None,
  'With --mode=evaluate, film or generate: the iteration of a checkpoint; with '
  '--mode=evaluate also best or all. Default: the newest checkpoint.',
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
flags.DEFINE_string(
  'output',
  None,
  'With --mode=generate: a folder for PNG files, or FILE.npz. With '
  '--mode=film: FILE.mp4, FILE.webp or FILE.gif. Default: in the workdir.',
)
flags.DEFINE_bool(
  'overwrite', None, 'With --mode=generate or film: replace the output.'
)
flags.DEFINE_float(
  'seconds', None, 'With --mode=film: the length of the film. Default: 8.'
)
flags.DEFINE_bool(
  'trust',
  None,
  "With --mode=generate or film: run the code that the run's config names.",
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
flags.DEFINE_string(
  'storage',
  None,
  'With --mode=sweep: the URL of a database that several drivers share. '
  'Default: a file in the workdir.',
)
flags.DEFINE_integer(
  'parallel_trials',
  None,
  'With --mode=sweep: the number of trials that run at the same time. Default: '
  'one for each accelerator or slice; one without accelerators.',
)
flags.DEFINE_string(
  'executor', None, 'With --mode=sweep: local (the default) or tpu.'
)
flags.DEFINE_list(
  'slices', None, 'With --executor=tpu: the names of the slices, NAME,NAME,...'
)
flags.DEFINE_string(
  'zone', None, "With --executor=tpu: the slices' zone. Default: gcloud's."
)
flags.DEFINE_string(
  'remote',
  None,
  'With --executor=tpu: the shell command that enters the folder of launch.py '
  "on a host. Default: 'cd gan_jax'.",
)
flags.DEFINE_integer(
  'port', None, 'With --mode=lab: the port of the page. Default: 8642, or any.'
)
_COMPARE = flags.DEFINE_list(
  'compare',
  None,
  'Compare the scores of these runs, WORKDIR,WORKDIR,..., the best first. Only '
  '--score goes with it.',
)
_SCORE = flags.DEFINE_string(
  'score', 'fid', 'With --compare: the name of the score.'
)
_MODE = flags.DEFINE_enum('mode', 'train', [*MODES, *RUN_MODES], 'What to run.')


def main(argv: list[str]) -> None:
  """Runs the mode that `--mode` names."""
  logging.set_verbosity(logging.WARNING)  # Orbax logs every save
  try:
    if len(argv) > 1:
      raise UserError(f'unexpected argument {argv[1]!r}: flags begin with --')
    if _act_on_runs():
      return
    if _CONFIG.value is None:
      raise UserError(
        'name an experiment: --config=experiments/vanilla_mnist.py'
      )
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
  except UserError as error:
    _print_error(error)
    _exit(DIVERGED if isinstance(error, Diverged) else 2, str(error))
  except Preempted as preempted:
    print(f'Preempted, {preempted}: repeat the command to resume.')
    _exit(PREEMPTED)
  except KeyboardInterrupt as interrupt:
    state = str(interrupt) or 'nothing more was saved'
    print(f'Interrupted, {state}: repeat the command to resume.')
    _exit(130, '' if str(interrupt) else 'interrupted')
  except Exception as error:
    if not devices.is_distributed():
      raise
    # If another process was lost, the watch of the peers says so and ends this
    # process meanwhile.
    time.sleep(peers.VERDICT_SECONDS)
    traceback.print_exc()
    _exit(1, f'{type(error).__name__}: {error}')


def _import(name: str) -> Callable[..., Any]:
  module, _, function = name.partition(':')
  return getattr(importlib.import_module(module), function)


def _serve_lab() -> None:
  """Serves the lab, with the experiment of --config or a ring of Gaussians."""
  _apply_overrides()
  from gan_jax.lab.lab import lab

  workdir = os.path.expanduser(_WORKDIR.value or str(RUNS / 'lab'))
  filename = config_flags.get_config_filename(flags.FLAGS['config'])
  story = 'two_players' if filename == LAB_EXPERIMENT else None
  lab(_CONFIG.value, workdir, story=story, **_mode_arguments())


def _act_on_runs() -> bool:
  """Does what needs no config but finished runs; returns whether it did."""
  if _COMPARE.value:
    print(gan_jax.compare(*_COMPARE.value, name=_SCORE.value).to_string())
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


def _exit(code: int, line: str = '') -> None:
  """Exits at once, without waiting for threads.

  `line` tells the other processes of the run why they must end too.
  """
  if devices.is_distributed():
    peers.leave(code, line)
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)


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
      'overrides': _overrides(),
    }
  return kwargs


def _apply_overrides() -> None:
  """Adapts the experiment's config to the overrides."""
  for note in settle(_CONFIG.value, _overrides()):
    if devices.is_main():
      print(f'Removed: {note}', flush=True)


def _overrides() -> dict[str, Any]:
  """Returns the overrides that the user typed, by key."""
  overrides = config_flags.get_override_values(flags.FLAGS['config'])
  return overrides | {key: None for key in _keys_set_to_none(sys.argv)}


def changed_settings() -> dict[str, Any]:
  """Returns the settings that differ from the experiment's file, by key."""
  filename = config_flags.get_config_filename(flags.FLAGS['config'])
  original = flatten(read_experiment(filename).to_dict())
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


def parse(argv: list[str]) -> list[str]:
  """Parses the flags; a mistake ends in one line instead of a traceback."""
  if '--mode=lab' in argv and not any(x.startswith('--config=') for x in argv):
    argv = [argv[0], f'--config={LAB_EXPERIMENT}', *argv[1:]]
  try:
    defaults = _check_overrides(argv)
    rest = flags.FLAGS([arg for arg in argv if not _keys_set_to_none([arg])])
    for key in _keys_set_to_none(argv):
      _CONFIG.value.update_from_flattened_dict({key: None})
    return rest
  except flags.UnrecognizedFlagError as error:
    key = error.flagname.rpartition('config.')[2]
    flag_hint = suggest(error.flagname, FLAGS).replace("mean '", "mean '--")
    key_hint = suggest(key, defaults).replace("mean '", "mean '--config.")
    valid = f' (flags: --config, --config.KEY, --{", --".join(FLAGS[1:])})'
    hint = flag_hint or key_hint or valid
    sys.exit(_print_error(f'there is no flag --{error.flagname}{hint}'))
  except flags.IllegalFlagValueError as error:
    sys.exit(_print_error(_value_error(error)))
  except (flags.Error, UserError) as error:
    sys.exit(_print_error(error))


def _check_overrides(argv: list[str]) -> dict[str, Any]:
  """Checks the overridden keys; returns the experiment's settings, flat.

  The flags library would answer a broken file or unknown key by a traceback.
  """
  filenames = re.findall(r'^--?config[=\n](.*)$', '\n'.join(argv), re.MULTILINE)
  if not filenames:
    return {}
  defaults = flatten(read_experiment(filenames[-1]).to_dict())
  path = filenames[-1].partition(':')[0]
  for arg in argv:
    match = re.match(r'--?(no)?config\.([^=]*)', arg)
    if match is not None:
      check_key(path, match[2], defaults)
  return defaults


def _value_error(error: flags.IllegalFlagValueError) -> str:
  """Returns the message for a flag's invalid value: what is valid."""
  match = re.match(r'flag --([^=]+)=(.*?): ', str(error), re.DOTALL)
  flag = flags.FLAGS[match[1]] if match else None
  if flag is None or flag.flag_type() not in EXPECTED:
    return str(error)
  value, hint = match[2], ''
  if (default := flag.default) is not None:
    example = tuple(default) if isinstance(default, list) else default
    hint = f' (for example "{example}")'
  with contextlib.suppress(ValueError):
    if flag.flag_type() == 'int' and float(value).is_integer():
      hint = f' (type {int(float(value))})'
  expected = EXPECTED[flag.flag_type()]
  return f'--{flag.name}={value} must be {expected}{hint}'


def _keys_set_to_none(argv: list[str]) -> list[str]:
  """Returns the keys set to None, which the flags library cannot parse."""
  keys = re.findall(r'^--?config\.(\S+)=None$', '\n'.join(argv), re.MULTILINE)
  bounds = {key: bound_of(key) for key in keys}
  return [key for key, bound in bounds.items() if bound and bound.none]


def _print_error(error: Exception | str) -> int:
  """Prints an error as one line; returns the exit code of a user error."""
  line = ' '.join(str(error).split())
  print(f'launch.py: {line}', file=sys.stderr)
  return 2


if __name__ == '__main__':
  app.run(main, flags_parser=parse)
