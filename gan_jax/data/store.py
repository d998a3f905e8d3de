"""Storage of prepared data sets: on the local disk, or also in a bucket.

Records are read in random order, and each read from a bucket would be one
request. So a set in a bucket is copied to the local disk before it is read.
"""

from etils import epath, epy

from gan_jax.data.source import DataSpec
from gan_jax.files import is_remote, local

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


def _copy(source: epath.Path, target: epath.Path) -> None:
  """Copies a set so that an interrupted copy never counts as complete."""
  (target / INFO).unlink(missing_ok=True)
  target.mkdir(parents=True, exist_ok=True)
  for file in sorted(source.iterdir(), key=lambda file: file.name == INFO):
    file.copy(target / file.name, overwrite=True)
