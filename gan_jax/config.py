"""The config of a run: its keys, its comparison, and its file `config.json`."""

import json
import os
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from gan_jax.bounds import check_values
from gan_jax.errors import UserError, suggest
from gan_jax.files import is_remote, write_whole

# Files that a run that was killed early may have left in its workdir.
LEFT_OVER_FILES = ('.lock', 'config.json.*.part')

# Names in a workdir that must be folders, and those that must be files.
FOLDERS = ('checkpoints', 'checksums', 'damaged', 'samples', 'tensorboard')
FILES = ('config.json', 'metrics.jsonl', 'scores.jsonl')

# Blocks that every config has, and those that it may have.
BLOCKS = (
  'data',
  'game',
  'model',
  'optimizer',
  'optimizer.disc',
  'optimizer.gen',
)
OPTIONAL_BLOCKS = (
  'evaluation', 'growth', 'init', 'model.disc', 'model.encoder', 'model.gen',
)  # fmt: skip

# Keys that may change when a run is resumed. None of them changes results that
# were already computed.
CHANGEABLE = (
  'checkpoint_every_images',
  'checkpoints_to_keep',
  'data.cache_gb',
  'data.dir',
  'data.files',
  'data.max_device_bytes',
  'data.workers',
  'evaluation.every_images',
  'evaluation.features',
  'evaluation.held_out',
  'evaluation.labels',
  'evaluation.metrics',
  'evaluation.num_samples',
  'evaluation.protocol',
  'evaluation.seeds',
  'evaluation.standing_batches',
  'log_every_steps',
  'on_divergence',
  'parallel',
  'sample_every_images',
  'total_images',
  'wandb',
)

# Keys that may differ between the machines of a run. None of them changes the
# results.
PER_MACHINE = ('data.cache_gb', 'data.dir', 'data.files', 'data.workers')

# Keys of every experiment, and blocks that may have further keys: those of
# `game` and `model` depend on the game.
REQUIRED = (
  'batch_size', 'checkpoint_every_images', 'checkpoints_to_keep',
  'data.channels', 'data.crop', 'data.dir', 'data.files', 'data.flip',
  'data.max_device_bytes', 'data.resolution', 'data.source', 'data.split',
  'data.workers', 'disc_steps', 'ema_halflife_images', 'ema_rampup',
  'evaluation.every_images', 'evaluation.features', 'evaluation.held_out',
  'evaluation.metrics', 'evaluation.num_samples', 'evaluation.seeds',
  'game.name', 'gen_batch_size', 'log_every_steps', 'on_divergence',
  'optimizer.disc.learning_rate', 'optimizer.disc.name',
  'optimizer.gen.learning_rate', 'optimizer.gen.name', 'parallel',
  'precision', 'steps_per_dispatch', 'sample_every_images', 'seed',
  'total_images', 'wandb',
)  # fmt: skip
OPEN = (
  'game.',
  'growth.',
  'model.',
  'optimizer.disc.',
  'optimizer.gen.',
)
# `schedule` lists what changes with time; it may refer to keys of `growth`. The
# program itself adds `data.size`, `data.shards` and `init.digest`, so that
# changed data, a changed order and changed initial weights are detected.
OPTIONAL = (
  'data.a', 'data.b', 'data.cache_gb', 'data.classes', 'data.load_resolution',
  'data.pyramid', 'data.rotate', 'data.shards', 'data.shuffle_window',
  'data.size', 'evaluation.labels', 'evaluation.protocol',
  'evaluation.standing_batches', 'init.digest', 'init.players', 'init.source',
  'init.state', 'schedule',
)  # fmt: skip


def check_keys(flat: Mapping[str, Any]) -> None:
  """Refuses a flat config with an unknown or a missing key."""
  for key in flat:
    if key not in (*REQUIRED, *OPTIONAL) and not key.startswith(OPEN):
      near = suggest(key, (*REQUIRED, *OPTIONAL))
      raise UserError(f'config.{key} is unknown{near}')
  for key in REQUIRED:
    if key not in flat:
      raise UserError(f'the config has no key {key}: add it to get_config')


def check_key(where: str, key: str, known: Mapping[str, Any]) -> None:
  """Refuses an override of a key that `known` does not have.

  `where` names the config in the message.
  """
  if key in known:
    return
  if any(valid.startswith(f'{key}.') for valid in known):
    raise UserError(f'config.{key} is a block: override one of its keys')
  block = key.rpartition('.')[0]
  valid = [k for k in known if k.rpartition('.')[0] == block]
  listed = f' (valid: {", ".join(valid)})' if valid else ''
  # Games and networks take more arguments than a file must set.
  is_open = key.startswith(('game.', 'model.'))
  hint = ' (to set another argument, add it to the file)' if is_open else ''
  raise UserError(
    f'{where} has no key {key!r}{suggest(key, known) or listed}{hint}'
  )


def changed(config: ConfigDict, key: str, value: Any) -> ConfigDict:
  """Returns a copy of a config with another value of one key."""
  config = config.copy_and_resolve_references()
  config.update_from_flattened_dict({key: value})
  return config


def with_data_size(
  config: ConfigDict, size: int | tuple[int, ...], shards: str | None = None
) -> ConfigDict:
  """Returns a copy with the sizes of the data, which identify the run.

  `shards` identifies the shards, if the order of the data depends on them.
  """
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.data.size = size
    if shards is not None:
      config.data.shards = shards
  return config


def with_init_digest(config: ConfigDict, digest: str) -> ConfigDict:
  """Returns a copy with the digest of the initial weights."""
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.init.digest = digest
  return config


def init_source(config: ConfigDict) -> str | None:
  """Returns the file or run of the initial weights; None: they are random."""
  return config.get('init', {}).get('source')


def flatten(tree: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """Flattens a config: {'a': {'b': 1}} -> {'a.b': 1}."""
  return dict(_leaves(tree, prefix))


def _leaves(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
  for key, value in tree.items():
    if isinstance(value, Mapping):
      yield from _leaves(value, f'{prefix}{key}.')
    else:
      yield f'{prefix}{key}', value


def differences(
  one: Mapping[str, Any], other: Mapping[str, Any], ignore: Container[str]
) -> list[tuple[str, Any, Any]]:
  """Lists the differences of two flat configs.

  Returns:
    (key, value in `one`, value in `other`) of each differing key that is not in
    `ignore`. The value of a missing key is None.
  """
  pairs = [
    (key, one.get(key), other.get(key))
    for key in sorted(one.keys() | other.keys())
    if key not in ignore
  ]
  return [pair for pair in pairs if pair[1] != pair[2]]


def _file(workdir: str | Path) -> epath.Path:
  return epath.Path(workdir).expanduser() / 'config.json'


def check_workdir(config: ConfigDict, workdir: str | Path) -> None:
  """Refuses a workdir that holds another run, or other files."""
  file = _file(workdir)
  _check_kinds(file.parent)
  if not file.exists():
    other_files = file.parent.is_dir() and [
      path.name
      for path in file.parent.iterdir()
      if not any(path.match(pattern) for pattern in LEFT_OVER_FILES)
    ]
    if other_files:
      raise UserError(
        f'{workdir} holds no run, but {other_files[0]!r}: name another '
        '--workdir'
      )
    return
  saved = flatten(_parse(file))
  new = flatten(_jsonable(config))
  for key in ('data.shards', 'data.size', 'init.digest'):
    new.setdefault(key, saved.get(key))
  for flat in (saved, new):  # a run without initial weights says no more
    if flat.get('init.source') is None:
      flat.pop('init.players', None)
    for key in ('data.pyramid', 'init.state'):  # older runs do not have them
      if not flat.get(key):
        flat.pop(key, None)
  differing = [
    f'{key} ({x} there, {y} here)'
    for key, x, y in differences(saved, new, ignore=CHANGEABLE)
  ]
  if differing:
    raise UserError(
      f'{workdir} holds another run: name another --workdir '
      f'({"; ".join(differing)})'
    )


def write(config: ConfigDict, workdir: str | Path) -> None:
  """Writes `config.json` atomically."""
  file = _file(workdir)
  try:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, json.dumps(_jsonable(config), indent=2) + '\n')
  except OSError as error:
    raise UserError(f'cannot write to {workdir}: {error.strerror}') from error


def _jsonable(config: ConfigDict) -> dict[str, Any]:
  return json.loads(json.dumps(config.to_dict()))


def read(workdir: str | Path) -> ConfigDict:
  """Reads `config.json` of a run."""
  file = _file(workdir)
  _check_kinds(file.parent)
  if not file.exists():
    raise UserError(
      f'{workdir} is not the workdir of a run: it has no config.json'
    )
  return ConfigDict(with_tuples(_parse(file)))


def _check_kinds(workdir: epath.Path) -> None:
  """Refuses a workdir with a file in place of a folder, or the reverse.

  Raises:
    UserError: A name has the wrong kind, or the workdir cannot be read.
  """
  if is_remote(workdir):
    return  # buckets have no folders
  kinds = {
    **{name: ('a file', 'a folder', Path.is_file) for name in FOLDERS},
    **{name: ('a folder', 'a file', Path.is_dir) for name in FILES},
  }
  try:
    for name, (actual, expected, is_wrong) in kinds.items():
      if is_wrong(Path(workdir / name)):
        raise UserError(
          f'{workdir / name} is {actual}, but a run needs {expected} there: '
          'move it away, or name another --workdir'
        )
    if Path(workdir).is_dir():
      os.listdir(workdir)
  except OSError as error:
    raise UserError(f'cannot read {workdir}: {error.strerror}') from error


def _parse(file: epath.Path) -> dict[str, Any]:
  try:
    tree = json.loads(file.read_text())
  except (OSError, ValueError, RecursionError) as error:
    raise _damaged(file, str(error)) from error
  _check_blocks(file, tree)
  return tree


def _check_blocks(file: epath.Path, tree: Any) -> None:
  """Refuses a file whose content is not a config."""
  if not isinstance(tree, dict):
    raise _damaged(file, f'it is {_short(tree)}, but must be a block')
  known = {'': tree}
  for name in (*BLOCKS, *OPTIONAL_BLOCKS):
    block, _, key = name.rpartition('.')
    if name in OPTIONAL_BLOCKS and key not in known[block]:
      continue
    value = known[name] = known[block].get(key)
    if not isinstance(value, dict):
      actual = f'is {_short(value)}' if key in known[block] else 'is missing'
      raise _damaged(file, f'{name} {actual}, but must be a block')
  try:
    check_values(flatten(with_tuples(tree)))
  except UserError as error:
    raise _damaged(file, str(error)) from error
  segments = tree.get('schedule', [{}])
  if not (
    isinstance(segments, list) and all(isinstance(x, dict) for x in segments)
  ):
    raise _damaged(
      file, f'schedule is {_short(segments)}, but must be a list of blocks'
    )


def _damaged(file: epath.Path, problem: str) -> UserError:
  return UserError(
    f'config.json of {file.parent} is damaged: {problem}; restore it, or name '
    'another workdir'
  )


def _short(value: Any) -> str:
  text = json.dumps(value)
  return text if len(text) <= 40 else f'{text[:40]}...'


def with_tuples(tree: Any) -> Any:
  """Turns lists into tuples, which JSON does not have."""
  if isinstance(tree, dict):
    return {key: with_tuples(value) for key, value in tree.items()}
  return tuple(map(with_tuples, tree)) if isinstance(tree, list) else tree
