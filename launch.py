"""Plays the experiment of a config file.

  python launch.py --config=experiments/vanilla_mnist.py
  python launch.py --config=experiments/dcgan_celeba.py:tiny --workdir=DIR
  python launch.py --config=experiments/dcgan_celeba.py --config.batch_size=256

The experiment's file shows every key that can be overridden.
"""

# Parses flags, and delegates: everything else can be imported.

import importlib
import os
import re
import runpy
import sys
import traceback
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

import gan_jax
from gan_jax import parallel
from gan_jax.config import CHANGEABLE, NULLABLE, flatten
from gan_jax.errors import Preempted, UserError, nearest
from gan_jax.precompile import is_compiling

# What `--mode` chooses from: functions of (config, workdir). Imported when they
# are called: the loader's processes import this file too.
MODES = {
  'train': 'gan_jax.train:train',
  'prepare': 'gan_jax.prepare:prepare',
  'preview': 'gan_jax.preview:preview',
  'benchmark': 'gan_jax.benchmark:benchmark',
  'evaluate': 'gan_jax.evaluation:evaluate',
}

# Our own, for a misspelt one.
FLAGS = (
  'config', 'workdir', 'mode', 'step', 'truncation', 'compare', 'score',
  'coordinator_address', 'num_processes', 'process_id',
)  # fmt: skip

# The exit code after SIGTERM, when all is saved: EX_TEMPFAIL, run it again.
PREEMPTED = 75

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
_STEP = flags.DEFINE_string(
  'step',
  None,
  'With --mode=evaluate: which checkpoint, by its rounds; best; all. Default: '
  'the newest.',
)
_TRUNCATION = flags.DEFINE_float(
  'truncation',
  None,
  'With --mode=evaluate: the largest value of a latent. Default: none.',
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
    parallel.join(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    workdir = os.path.expanduser(_WORKDIR.value or default_workdir())
    module, _, function = MODES[_MODE.value].partition(':')
    mode = getattr(importlib.import_module(module), function)
    mode(_CONFIG.value, workdir, **_of_mode())
  except UserError as error:
    code = _complain(error)
    if parallel.is_one_of_many():
      # The others wait for this process, and end when it is gone; to leave in
      # peace would be to wait for them.
      sys.stdout.flush()
      os._exit(code)
    _leave(code)
  except Preempted as preempted:
    print(f'Told to leave, {preempted}: the same command goes on.')
    _leave(PREEMPTED)
  except KeyboardInterrupt as interrupt:
    saved = str(interrupt) or 'nothing more was saved'
    print(f'Interrupted, {saved}: the same command goes on.')
    _leave(130)


def _leave(code: int) -> None:
  """Ends the program; what is being compiled ahead is not waited for."""
  if is_compiling():
    sys.stdout.flush()
    os._exit(code)
  sys.exit(code)


def _of_mode() -> dict[str, Any]:
  """The flags that one mode alone takes."""
  given = {'step': _STEP.value, 'truncation': _TRUNCATION.value}
  if _MODE.value == 'evaluate':
    return given
  for name, value in given.items():
    if value is not None:
      raise UserError(f'--{name} is for --mode=evaluate')
  return {}


def default_workdir() -> str:
  """runs/EXPERIMENT[-ARGUMENT][,KEY=VALUE...]: another run, another folder."""
  path, _, argument = config_flags.get_config_filename(
    flags.FLAGS['config']
  ).partition(':')
  name = '-'.join(filter(None, [Path(path).stem, argument]))
  overrides = config_flags.get_override_values(flags.FLAGS['config'])
  overrides |= {key: None for key in _nulled(sys.argv)}
  parts = [
    f'{key}={value}'.replace('/', '_')
    for key, value in sorted(overrides.items())
    if key not in CHANGEABLE
  ]
  return str(Path('runs', ','.join([name, *parts])))


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
    lines = [
      frame.lineno
      for frame in traceback.extract_tb(error.__traceback__)
      if Path(frame.filename) == Path(path)
    ]
    where = f'{path}:{lines[-1]}' if lines else path
    raise UserError(
      f'{where} gives no config: {type(error).__name__}: {error}'
    ) from error
  if not isinstance(config, ConfigDict):
    raise UserError(f'get_config of {path} must return a ConfigDict')
  defaults = flatten(config.to_dict())
  for arg in argv:
    match = re.match(r'--?(no)?config\.([^=]*)', arg)
    if match is None or (key := match[2]) in defaults:
      continue
    if any(valid.startswith(f'{key}.') for valid in defaults):
      raise UserError(f'config.{key} is a block: override a key of it')
    block = key.rpartition('.')[0]
    valid = [k for k in defaults if k.rpartition('.')[0] == block] or defaults
    raise UserError(
      f'{path} has no key {key!r}'
      f'{nearest(key, defaults) or " (valid: " + ", ".join(valid) + ")"}'
    )
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
