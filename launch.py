"""Plays the experiment of a config file.

  python launch.py --config=experiments/vanilla_mnist.py
  python launch.py --config=experiments/dcgan_celeba.py:tiny --workdir=DIR
  python launch.py --config=experiments/dcgan_celeba.py --config.batch_size=256
  python launch.py --config=experiments/vanilla_mnist.py --mode=sweep

The experiment's file shows every key that can be overridden.
"""

# Parses flags, and delegates: everything else can be imported.

import importlib
import os
import re
import runpy
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

import gan_jax
from gan_jax import logfile, parallel, peers
from gan_jax.config import (
  CHANGEABLE,
  NULLABLE,
  OF_MACHINE,
  check_key,
  flatten,
)
from gan_jax.errors import (
  DIVERGED,
  PREEMPTED,
  Diverged,
  Preempted,
  UserError,
  nearest,
  where_in,
)

# What `--mode` chooses from: functions of (config, workdir). Imported when they
# are called: the loader's processes import this file too.
MODES = {
  'train': 'gan_jax.train:train',
  'prepare': 'gan_jax.prepare:prepare',
  'preview': 'gan_jax.preview:preview',
  'benchmark': 'gan_jax.benchmark:benchmark',
  'evaluate': 'gan_jax.evaluation:evaluate',
  'sweep': 'gan_jax.sweep.drive:sweep',
}
# The flags that one mode alone takes.
OF_MODE = {
  'evaluate': ('step', 'truncation'),
  'sweep': (
    'sweep', 'trials', 'dry_run', 'storage', 'parallel_trials', 'executor',
    'slices', 'zone', 'remote',
  ),
}  # fmt: skip

# Our own, for a misspelt one.
FLAGS = (
  'config', 'workdir', 'mode', 'compare', 'score', 'coordinator_address',
  'num_processes', 'process_id', *OF_MODE['evaluate'], *OF_MODE['sweep'],
)  # fmt: skip

_CONFIG = config_flags.DEFINE_config_file(
  'config',
  None,
  'The experiment: FILE.py or FILE.py:ARGUMENT. Every key of it is a flag of '
  'its own: --config.batch_size=128.',
)
_WORKDIR = flags.DEFINE_string(
  'workdir',
  None,
  'The folder of the run; the same one again resumes it. Default: '
  'runs/EXPERIMENT, with the overridden keys.',
)
_COORDINATOR = flags.DEFINE_string(
  'coordinator_address',
  None,
  'HOST:PORT of process 0, where the processes do not find each other.',
)
_PROCESSES = flags.DEFINE_integer('num_processes', None, 'How many there are.')
_PROCESS = flags.DEFINE_integer(
  'process_id', None, 'Which this one is, from 0.'
)
flags.DEFINE_string(
  'step',
  None,
  'With --mode=evaluate: which checkpoint, by its rounds; best; all. Default: '
  'the newest.',
)
flags.DEFINE_float(
  'truncation',
  None,
  'With --mode=evaluate: the largest value of a latent. Default: none.',
)
flags.DEFINE_string(
  'sweep', None, 'With --mode=sweep: which of the experiment. Default: the one.'
)
flags.DEFINE_integer(
  'trials', None, 'With --mode=sweep: how many settings a search tries.'
)
flags.DEFINE_bool(
  'dry_run', None, 'With --mode=sweep: only prints the commands of the trials.'
)
flags.DEFINE_string(
  'storage',
  None,
  'With --mode=sweep: the URL of a database, for several drivers. Default: a '
  'file in the workdir.',
)
flags.DEFINE_integer(
  'parallel_trials',
  None,
  'With --mode=sweep: how many trials at a time. Default: one for each '
  'accelerator, or slice; one on a machine without.',
)
flags.DEFINE_string(
  'executor', None, 'With --mode=sweep: local (the default), or tpu.'
)
flags.DEFINE_list(
  'slices', None, 'With --executor=tpu: their names, by commas.'
)
flags.DEFINE_string('zone', None, 'With --executor=tpu: where the slices are.')
flags.DEFINE_string(
  'remote',
  None,
  'With --executor=tpu: what leads on a host to where `python launch.py` runs. '
  "Default: 'cd gan_jax'.",
)
_COMPARE = flags.DEFINE_list(
  'compare',
  None,
  'Workdirs, by commas: their scores, the best first. Alone, with --score.',
)
_SCORE = flags.DEFINE_string('score', 'fid', 'With --compare: which score.')
_MODE = flags.DEFINE_enum('mode', 'train', list(MODES), 'What to do.')


def main(argv: list[str]) -> None:
  """Does what `--mode` says."""
  logging.set_verbosity(logging.WARNING)  # Orbax tells of every save
  try:
    if len(argv) > 1:
      raise UserError(f'what is {argv[1]!r}? Flags begin with --')
    if _COMPARE.value:
      print(gan_jax.compare(*_COMPARE.value, name=_SCORE.value).to_string())
      return
    if _CONFIG.value is None:
      raise UserError(
        'name an experiment: --config=experiments/vanilla_mnist.py'
      )
    _join()
    given = _of_mode()
    workdir = os.path.expanduser(_WORKDIR.value or default_workdir())
    logfile.divert(workdir)
    if _MODE.value != 'sweep':
      peers.agree(_described(workdir, given))
    module, _, function = MODES[_MODE.value].partition(':')
    mode = getattr(importlib.import_module(module), function)
    mode(_CONFIG.value, workdir, **given)
    peers.part()
  except UserError as error:
    _complain(error)
    _leave(DIVERGED if isinstance(error, Diverged) else 2, str(error))
  except Preempted as preempted:
    print(f'Told to leave, {preempted}: the same command goes on.')
    _leave(PREEMPTED)
  except KeyboardInterrupt as interrupt:
    saved = str(interrupt) or 'nothing more was saved'
    print(f'Interrupted, {saved}: the same command goes on.')
    _leave(130, '' if str(interrupt) else 'interrupted')
  except Exception as error:
    if not parallel.is_one_of_many():
      raise
    # If it is that another process was lost, that is told, and this one ends.
    time.sleep(peers.VERDICT_SECONDS)
    traceback.print_exc()
    _leave(1, f'{type(error).__name__}: {error}')


def _join() -> None:
  """Joins the other processes of the run, if there are any."""
  group = _COORDINATOR.value, _PROCESSES.value, _PROCESS.value
  if _MODE.value != 'sweep':
    peers.join(*group)
    peers.watch()
  elif any(value is not None for value in group):
    raise UserError('one process drives a sweep: without its coordinator')
  else:
    parallel.leave_devices()  # to the trials


def _leave(code: int, line: str = '') -> None:
  """Ends the program at once: nothing is left that must be waited for.

  `line`: why the other processes, if there are any, must end too.
  """
  if parallel.is_one_of_many():
    peers.leave(code, line)
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)


def _described(workdir: str, given: Mapping[str, Any]) -> dict[str, Any]:
  """What must be the same on all processes, by name."""
  config = {
    f'config.{key}': value
    for key, value in flatten(_CONFIG.value.to_dict()).items()
    if key not in OF_MACHINE
  }
  where = workdir if '://' in workdir else os.path.abspath(workdir)
  return {
    **{f'--{name}': value for name, value in given.items()},
    **config,
    '--mode': _MODE.value,
    'workdir': where,
    **peers.versions(),
  }


def _of_mode() -> dict[str, Any]:
  """What the mode is given besides the config and the workdir."""
  given = {}
  for mode, names in OF_MODE.items():
    values = {name: flags.FLAGS[name].value for name in names}
    for name, value in values.items():
      if value is not None and mode != _MODE.value:
        raise UserError(f'--{name} is for --mode={mode}')
    if mode == _MODE.value:
      given = values
  if _MODE.value == 'sweep':
    given |= {
      'launcher': __file__,
      'experiment': config_flags.get_config_filename(flags.FLAGS['config']),
      'overrides': _overrides(),
    }
  return given


def _overrides() -> dict[str, Any]:
  """What was typed of the config, by key."""
  given = config_flags.get_override_values(flags.FLAGS['config'])
  return given | {key: None for key in _nulled(sys.argv)}


def default_workdir() -> str:
  """runs/EXPERIMENT[-ARGUMENT][,KEY=VALUE...]: another run, another folder.

  Of a sweep: what its trials share, and .sweep[-NAME].
  """
  path, _, argument = config_flags.get_config_filename(
    flags.FLAGS['config']
  ).partition(':')
  name = '-'.join(filter(None, [Path(path).stem, argument]))
  parts = [
    f'{key}={value}'.replace('/', '_')
    for key, value in sorted(_overrides().items())
    if key not in CHANGEABLE
  ]
  kind = ''
  if _MODE.value == 'sweep':
    kind = '-'.join(filter(None, ['.sweep', flags.FLAGS['sweep'].value]))
  return str(Path('runs', ','.join([name, *parts]) + kind))


def parse(argv: list[str]) -> list[str]:
  """Parses flags; a mistake is one line, not a traceback."""
  try:
    defaults = _defaults(argv)
    rest = flags.FLAGS([arg for arg in argv if not _nulled([arg])])
    for key in _nulled(argv):
      _CONFIG.value.update_from_flattened_dict({key: None})
    for key, default in defaults.items():
      _check_tuple(key, default, flatten(_CONFIG.value.to_dict())[key])
    return rest
  except flags.UnrecognizedFlagError as error:
    key = error.flagname.rpartition('config.')[2]
    own = nearest(error.flagname, FLAGS).replace("mean '", "mean '--")
    near = nearest(key, defaults).replace("mean '", "mean '--config.")
    listed = f' (flags: --config, --config.KEY, --{", --".join(FLAGS[1:])})'
    told = f'there is no flag --{error.flagname}{own or near or listed}'
    sys.exit(_complain(told))
  except (flags.Error, UserError) as error:
    sys.exit(_complain(error))


def _defaults(argv: list[str]) -> dict[str, Any]:
  """The experiment's own config, flat; checks the keys that are overridden.

  The flags library tells of a broken file, or an unknown key, by traceback.
  """
  named = re.findall(r'^--?config[=\n](.*)$', '\n'.join(argv), re.MULTILINE)
  if not named:
    return {}
  path, _, argument = named[-1].partition(':')
  if not Path(path).is_file():
    near = nearest(path, map(str, Path(path).parent.glob('*.py')))
    raise UserError(f'there is no experiment file {path!r}{near}')
  try:
    experiment = runpy.run_path(path)
    config = experiment['get_config'](*filter(None, [argument]))
  except Exception as error:
    raise UserError(
      f'{where_in(path, error)} gives no config: {type(error).__name__}: '
      f'{error}'
    ) from error
  if not isinstance(config, ConfigDict):
    raise UserError(f'get_config of {path} must return a ConfigDict')
  defaults = flatten(config.to_dict())
  for arg in argv:
    match = re.match(r'--?(no)?config\.([^=]*)', arg)
    if match is not None:
      check_key(path, match[2], defaults)
  return defaults


def _nulled(argv: list[str]) -> list[str]:
  """The keys that are set to None: the flags library has no such integer."""
  given = re.findall(r'^--?config\.(\S+)=None$', '\n'.join(argv), re.MULTILINE)
  return [key for key in given if key in NULLABLE]


def _check_tuple(key: str, default: Any, value: Any) -> None:
  """The flags library checks what a value is, but not what is in a tuple."""
  kinds = {type(item) for item in default} if isinstance(default, tuple) else {}
  if kinds and any(type(item) not in kinds for item in value):
    raise UserError(f'--config.{key}={value} is not of the kind of {default}')


def _complain(error: Exception | str) -> int:
  """Prints the error as one line, and is the exit code of a user's mistake."""
  line = ' '.join(str(error).split())
  print(f'launch.py: {line}', file=sys.stderr)
  return 2


if __name__ == '__main__':
  app.run(main, flags_parser=parse)
