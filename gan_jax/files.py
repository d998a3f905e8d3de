"""Files: whole or not at all, in folders, in buckets, and locked."""

import contextlib
import fcntl
import hashlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from etils import epath

from gan_jax.errors import UserError


def write_whole(path: epath.PathLike, content: bytes | str) -> None:
  """Replaces the file, or makes it; a kill at any moment leaves no half."""
  path = epath.Path(path)
  part = path.with_name(f'{path.name}.{os.getpid()}.part')
  if isinstance(content, str):
    part.write_text(content)
  else:
    part.write_bytes(content)
  part.replace(path)


def point_link(link: Path, folder: str | Path) -> None:
  """Makes `link` a relative symbolic link to `folder`, in place of an older.

  It is replaced in one step. A file system that has no links, or something else
  of that name, leaves all as it is.
  """
  part = link.with_name(f'{link.name}.{os.getpid()}.part')
  with contextlib.suppress(OSError, NotImplementedError):
    try:
      part.symlink_to(os.path.relpath(folder, link.parent))
      part.replace(link)
    finally:
      part.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
  """The SHA-256 of a file.

  It is kept in the cache, so that a file is read again only when its size or
  its time of modification has changed.
  """
  stat = path.stat()
  identity = f'{path.resolve()} {stat.st_size} {stat.st_mtime_ns}'
  name = hashlib.sha256(identity.encode()).hexdigest()
  kept = cache_folder() / 'digests' / name
  with contextlib.suppress(OSError):
    return kept.read_text()
  with path.open('rb') as file:
    digest = hashlib.file_digest(file, 'sha256').hexdigest()
  with contextlib.suppress(OSError):
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_whole(kept, digest)
  return digest


def cache_folder() -> Path:
  """Of this user, on this machine: what can be made again."""
  base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
  return Path(base) / 'gan_jax'


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


@contextlib.contextmanager
def held(
  folder: epath.PathLike, busy: Callable[[], None], name: str = '.lock'
) -> Iterator[None]:
  """Holds a folder, which is made if need be; the kernel lets it go.

  `name`: of the file that stands for what is held of it.

  Where another process holds it `busy` is called, which raises; if it does not,
  this waits. A file system that has no locks is not held.

  Raises:
    OSError: The folder cannot be written to.
  """
  folder = epath.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  with (folder / name).open('w') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      busy()
      fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:
      pass
    yield


def is_held(folder: epath.PathLike, name: str = '.lock') -> bool:
  """Whether a process holds it at this moment."""
  file = epath.Path(folder) / name
  if not file.exists():
    return False
  with file.open('r') as opened:
    try:
      fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      return True
    except OSError:
      pass
  return False


@contextlib.contextmanager
def locked(workdir: str | Path) -> Iterator[None]:
  """Holds the workdir of a run; one in a bucket cannot be held."""

  def busy() -> None:
    raise UserError(
      f'{workdir} is in use by a run that is still going: stop it first, or '
      'name another --workdir'
    )

  with contextlib.ExitStack() as stack:
    if not is_remote(workdir):
      try:
        stack.enter_context(held(Path(workdir).expanduser(), busy))
      except OSError as error:
        raise UserError(
          f'cannot write to {workdir}: {error.strerror}'
        ) from error
    yield
