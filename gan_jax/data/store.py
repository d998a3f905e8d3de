"""Where prepared sets are: on a disk, or in a bucket and on this disk.

Records are read at random, and from a bucket each would be a request: so a set
in a bucket is copied to this machine before it is read.
"""

import tensorflow_datasets as tfds
from etils import epath

from gan_jax.data.source import DataSpec
from gan_jax.files import is_remote, local

# TFDS writes it, and it is copied, after everything else.
INFO = 'dataset_info.json'


def data_dir(wanted: DataSpec) -> epath.Path:
  """Where the sets are: `config.data.dir`, or as TFDS_DATA_DIR says."""
  return epath.Path(wanted.dir or tfds.core.constants.DATA_DIR).expanduser()


def is_prepared(folder: epath.Path) -> bool:
  """Whether a whole set is there."""
  return (folder / INFO).exists()


def bring(folder: epath.Path) -> bool:
  """Whether the set is here: copied from its bucket, if it is in one.

  One that is here alone, since a copy was cut short, is sent first.
  """
  here = local(folder)
  if is_remote(folder) and is_prepared(folder):
    text = (folder / INFO).read_text()
    if not is_prepared(here) or (here / INFO).read_text() != text:
      print(f'Copying {folder} to {here}')
      _copy(folder, here)
  elif is_prepared(here):
    send(folder)
  return is_prepared(here)


def send(folder: epath.Path) -> None:
  """Copies the set that was prepared here to where it belongs."""
  if is_remote(folder):
    _copy(local(folder), folder)


def _copy(source: epath.Path, target: epath.Path) -> None:
  """The set, so that it is never taken for whole before it is."""
  (target / INFO).unlink(missing_ok=True)
  target.mkdir(parents=True, exist_ok=True)
  for file in sorted(source.iterdir(), key=lambda file: file.name == INFO):
    file.copy(target / file.name, overwrite=True)
