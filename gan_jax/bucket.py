"""Folders in buckets (gs://...), and their copies on this machine."""

import importlib.util
from pathlib import Path

from etils import epath

from gan_jax.errors import UserError
from gan_jax.files import cache_folder


def is_remote(folder: epath.PathLike) -> bool:
  """Whether it is in a bucket; an error if it cannot be reached from here."""
  remote = '://' in str(folder)
  if remote and importlib.util.find_spec('gcsfs') is None:
    raise UserError(f"{folder} needs gcsfs: pip install -e '.[gcs]'")
  return remote


def local(folder: epath.PathLike) -> epath.Path:
  """Where on this machine the folder, or the copy of it, is."""
  if not is_remote(folder):
    return epath.Path(folder)
  path = str(folder).replace('://', '/').lstrip('/')
  return epath.Path(cache_folder()) / path


class Mirror:
  """The copy of a folder: what is written to it is sent from time to time.

  Of a folder that is not in a bucket it is the folder itself.
  """

  def __init__(self, folder: epath.PathLike):
    self._remote = epath.Path(folder) if is_remote(folder) else None
    self.path = Path(local(folder))
    self._sent: dict[Path, tuple[int, int]] = {}

  def fetch(self, *names: str) -> None:
    """Copies the files of these names here, and forgets those of before."""
    if self._remote is None:
      return
    for name in names:
      for old in sorted(self.path.glob(name)):
        old.unlink()
      for file in self._remote.glob(name):
        target = self.path / file.relative_to(self._remote)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())

  def send(self) -> None:
    """Copies there what has changed here."""
    if self._remote is None:
      return
    for file in sorted(self.path.rglob('*')):
      stamp = file.stat().st_mtime_ns, file.stat().st_size
      if file.is_file() and self._sent.get(file) != stamp:
        target = self._remote / file.relative_to(self.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
        self._sent[file] = stamp
