"""The command line of launch.py: overrides, mistakes and exit codes.

launch.py defines the flags. A mistake in them ends in one line instead of a
traceback.
"""

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from absl import flags
from ml_collections import config_flags

from gan_jax import devices
from gan_jax.bounds import bound_of
from gan_jax.config import check_key
from gan_jax.errors import UserError, suggest
from gan_jax.experiment_file import read_settings
from gan_jax.training import peers

# What a flag expects, by the name that the flags library gives its type.
EXPECTED = {
  'bool': 'True or False',
  'float': 'a number',
  'int': 'an integer',
  'multi tuple': 'a tuple',
}
OUTPUT_CLOSED = 141  # what a shell returns after SIGPIPE
# The experiment of the lab, if none is named.
LAB_EXPERIMENT = f'{Path(__file__).parents[1] / "experiments" / "toy.py"}:ring'
# Flags of some modes only.
MODE_FLAGS = {
  'train': ('init',),
  'apply': ('input', 'output', 'overwrite', 'step', 'to', 'trust'),
  'compile': ('topology',),
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
    'sweep', 'trials', 'dry_run', 'parallel_trials', 'executor', 'address',
    'resources',
  ),
  'lab': ('port',),
}  # fmt: skip

# All flags of this program, to suggest one for a misspelt flag.
FLAGS = (
  'config', 'workdir', 'mode', 'compare', 'score', 'coordinator_address',
  'num_processes', 'process_id', *dict.fromkeys(sum(MODE_FLAGS.values(), ())),
)  # fmt: skip


def parse(argv: list[str]) -> list[str]:
  """Parses the flags; a mistake ends in one line instead of a traceback."""
  typed = _typed(argv)
  if typed.get('mode') == 'lab' and 'config' not in typed:
    argv = [argv[0], f'--config={LAB_EXPERIMENT}', *argv[1:]]
  try:
    defaults = _check_overrides(argv)
    rest = flags.FLAGS([arg for arg in argv if not _keys_set_to_none([arg])])
    for key in _keys_set_to_none(argv):
      if flags.FLAGS.config is None:
        raise UserError(
          f'--config.{key} needs an experiment: name --config=FILE'
        )
      flags.FLAGS.config.update_from_flattened_dict({key: None})
    return rest
  except flags.UnrecognizedFlagError as error:
    key = error.flagname.rpartition('config.')[2]
    flag_hint = suggest(error.flagname, FLAGS).replace("mean '", "mean '--")
    key_hint = suggest(key, defaults).replace("mean '", "mean '--config.")
    valid = f' (flags: --config, --config.KEY, --{", --".join(FLAGS[1:])})'
    hint = flag_hint or key_hint or valid
    _refuse(argv, f'there is no flag --{error.flagname}{hint}')
  except flags.IllegalFlagValueError as error:
    _refuse(argv, _value_error(error))
  except (flags.Error, UserError) as error:
    _refuse(argv, f'{error}')


def _refuse(argv: list[str], line: str) -> NoReturn:
  """Prints an error in the flags, informs the other processes, and exits.

  The others would wait for this process for minutes.
  """
  code = print_error(line)
  typed = _typed(argv)
  names = 'coordinator_address', 'num_processes', 'process_id'
  address, *numbers = (typed.get(name) for name in names)
  if address and all(number and number.isdigit() for number in numbers):
    with contextlib.suppress(UserError):
      peers.join(address, *map(int, numbers))
      peers.watch()
      exit_now(code, line)
  sys.exit(code)


def _typed(argv: list[str]) -> dict[str, str]:
  """Returns the typed flags by name, as --NAME=VALUE or --NAME VALUE."""
  found = re.findall(r'^--?(\w+)[=\n](.*)$', '\n'.join(argv), re.MULTILINE)
  return dict(found)


def _check_overrides(argv: list[str]) -> dict[str, Any]:
  """Checks the overridden keys; returns the experiment's settings, flat.

  The flags library would answer a broken file or unknown key by a traceback.
  """
  filenames = re.findall(r'^--?config[=\n](.*)$', '\n'.join(argv), re.MULTILINE)
  if not filenames:
    return {}
  defaults = read_settings(filenames[-1])
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


def print_error(error: Exception | str) -> int:
  """Prints an error as one line; returns the exit code of a user error."""
  line = ' '.join(str(error).split())
  print(f'launch.py: {line}', file=sys.stderr)
  return 2


def check_compare() -> None:
  """Refuses `--score` without `--compare`, and other flags beside both."""
  own = 'compare', 'score'
  if not flags.FLAGS['compare'].present:
    if flags.FLAGS['score'].present:
      raise UserError('--score needs --compare=WORKDIR,WORKDIR,...')
    return
  for name in FLAGS:
    if flags.FLAGS[name].present and name not in own:
      raise UserError(f'--compare takes only --score: remove --{name}')


def overrides() -> dict[str, Any]:
  """Returns the overrides that the user typed, by key."""
  overrides = config_flags.get_override_values(flags.FLAGS['config'])
  return overrides | {key: None for key in _keys_set_to_none(sys.argv)}


def is_output_closed() -> bool:
  """Returns whether the reader of the output is gone, as after `| head`."""
  try:
    print(flush=True)
  except BrokenPipeError:
    # Nothing more can be written, even when Python exits.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True
  return False


@contextlib.contextmanager
def end_with_output() -> Iterator[None]:
  """Exits without a traceback if the output is closed, as `--help` may find."""
  try:
    try:
      yield
    finally:
      sys.stdout.flush()
  except BrokenPipeError:
    if is_output_closed():
      exit_now(OUTPUT_CLOSED)
    raise


def exit_now(code: int, line: str = '') -> None:
  """Exits at once, without waiting for threads.

  `line` tells the other processes of the run why they must end too.
  """
  if devices.is_distributed():
    peers.leave(code, line)
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)
