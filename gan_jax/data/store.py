"""Storage of prepared data sets: on the local disk, or also in a bucket.

Records are read in random order, and each read from a bucket would be one
request. So a set in a bucket is copied to the local disk before it is read, as
a whole or shard by shard.
"""

from typing import Any

from etils import epath, epy

from gan_jax.data.cache import Cache, open_cache
from gan_jax.data.source import DataSpec
from gan_jax.errors import UserError
from gan_jax.files import cache_folder, is_remote, local, write_whole

with epy.lazy_imports():  # TFDS takes a quarter of a second
  import tensorflow_datasets as tfds

# Of the format of prepared sets.
VERSION = '1.0.0'
# The last file that TFDS writes and `_copy` copies: it marks a complete set.
INFO = 'dataset_info.json'


def data_dir(spec: DataSpec) -> epath.Path:
  """Returns the folder of prepared sets: `config.data.dir`, or that of TFDS."""
  return epath.Path(spec.dir or tfds.core.constants.DATA_DIR).expanduser()


def is_prepared(folder: epath.Path) -> bool:
  """Whether the folder holds a complete set."""
  return (folder / INFO).exists()


def pull(folder: epath.Path) -> bool:
  """Copies a set from its bucket to the local disk, if necessary.

  A set that exists only on the local disk, because an earlier copy to its
  bucket was interrupted, is copied to the bucket.

  Returns:
    Whether the local disk has the complete set.
  """
  local_folder = local(folder)
  if is_remote(folder) and is_prepared(folder):
    text = (folder / INFO).read_text()
    local_info = local_folder / INFO
    if not is_prepared(local_folder) or local_info.read_text() != text:
      print(f'Copying {folder} to {local_folder}')
      _copy(folder, local_folder)
  elif is_prepared(local_folder):
    push(folder)
  return is_prepared(local_folder)


def push(folder: epath.Path) -> None:
  """Copies a locally prepared set to its bucket, if it has one."""
  if is_remote(folder):
    _copy(local(folder), folder)


def stream(folder: epath.Path, limit: int) -> tuple[Cache, Any]:
  """Opens a set whose shards are fetched as they are needed.

  Returns:
    The cache of its shards, of at most `limit` bytes, and its TFDS builder.
  """
  is_remote(folder)  # refuses a bucket whose package is not installed
  folder = epath.Path(folder)
  path = str(folder.absolute()).replace('://', '/').lstrip('/')
  below = cache_folder() / 'streamed' / path
  sizes, described = {}, {}
  try:
    for file in folder.iterdir():
      if '.array_record' in file.name:
        sizes[file.name] = file.stat().length
      elif file.suffix in ('.json', '.txt'):
        described[file.name] = file.read_text()
  except Exception as error:  # each kind of bucket raises its own
    line = ' '.join(str(error).split())[:200]
    raise UserError(
      f'cannot read {folder} ({type(error).__name__}: {line}): repeat the '
      'command when the storage can be reached'
    ) from error
  cache = open_cache(folder, below / 'shards', sizes, limit, described[INFO])
  for name, text in described.items():
    write_whole(below / name, text)
  return cache, tfds.builder_from_directory(below)


def _copy(source: epath.Path, target: epath.Path) -> None:
  """Copies a set so that an interrupted copy never counts as complete."""
  (target / INFO).unlink(missing_ok=True)
  target.mkdir(parents=True, exist_ok=True)
  for file in sorted(source.iterdir(), key=lambda file: file.name == INFO):
    file.copy(target / file.name, overwrite=True)
