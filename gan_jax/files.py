"""Atomic writes, cached digests, copies of buckets, and locks."""

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
  """Writes a file atomically: a kill never leaves a partial file."""
  path = epath.Path(path)
  part = path.with_name(f'{path.name}.{os.getpid()}.part')
  if isinstance(content, str):
    part.write_text(content)
  else:
    part.write_bytes(content)
  part.replace(path)


def point_link(link: Path, folder: str | Path) -> None:
  """Makes `link` a relative symbolic link to `folder`; replaces an older link.

  The link is replaced atomically. Nothing changes if the file system has no
  links, or if `link` is a folder.
  """
  part = link.with_name(f'{link.name}.{os.getpid()}.part')
  with contextlib.suppress(OSError, NotImplementedError):
    try:
      part.symlink_to(os.path.relpath(folder, link.parent))
      part.replace(link)
    finally:
      part.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
  """Returns the SHA-256 of a file.

  The digest is cached: the file is read again only if its size or its
  modification time has changed.
  """
  stat = path.stat()
  identity = f'{path.resolve()} {stat.st_size} {stat.st_mtime_ns}'
  name = hashlib.sha256(identity.encode()).hexdigest()
  cached = cache_folder() / 'digests' / name
  with contextlib.suppress(OSError):
    return cached.read_text()
  with path.open('rb') as file:
    digest = hashlib.file_digest(file, 'sha256').hexdigest()
  with contextlib.suppress(OSError):
    cached.parent.mkdir(parents=True, exist_ok=True)
    write_whole(cached, digest)
  return digest


@contextlib.contextmanager
def reading(path: str | Path, expected: str, otherwise: str) -> Iterator[None]:
  """Turns errors while a downloaded file is read into one line each.

  Args:
    path: The file.
    expected: What the file should be, for the message if there is none.
    otherwise: What explains the error if the file is not damaged.

  Raises:
    UserError: The file does not exist or is damaged, or its content is refused.
  """
  try:
    yield
  except UserError as error:
    raise UserError(f'{path} {error}') from None
  except FileNotFoundError as error:
    raise UserError(f'there is no file {path}: expected {expected}') from error
  except Exception as error:  # damaged files raise errors of many types
    raise UserError(
      f'{path} is damaged, or {otherwise} ({type(error).__name__}): download '
      'it again'
    ) from error


def cache_folder() -> Path:
  """Returns the user's cache folder: files that can be made again."""
  base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
  return Path(base) / 'gan_jax'


def is_remote(folder: epath.PathLike) -> bool:
  """Returns whether a folder is in a bucket.

  Raises:
    UserError: It is in a bucket, but the package for buckets is not installed.
  """
  remote = '://' in str(folder)
  if remote and importlib.util.find_spec('gcsfs') is None:
    raise UserError(f"{folder} needs gcsfs: pip install -e '.[gcs]'")
  return remote


def local(folder: epath.PathLike) -> epath.Path:
  """Returns the folder, or for a bucket the path of its local copy."""
  if not is_remote(folder):
    return epath.Path(folder)
  path = str(folder).replace('://', '/').lstrip('/')
  return epath.Path(cache_folder()) / path


class Mirror:
  """A local copy of a folder in a bucket; `send` uploads its changes.

  For a folder that is not in a bucket, the copy is the folder itself.
  """

  def __init__(self, folder: epath.PathLike):
    self._remote = epath.Path(folder) if is_remote(folder) else None
    self.path = Path(local(folder))
    self._sent: dict[Path, tuple[int, int]] = {}

  def fetch(self, *names: str) -> None:
    """Downloads the files with these names; deletes older local ones."""
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
    """Uploads the files that have changed since the last call."""
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
  """Locks a folder, and creates it if needed; the kernel releases the lock.

  On a file system without locks, this has no effect.

  Args:
    folder: The folder.
    busy: Is called if another process holds the lock. It may raise an
      exception; otherwise this waits for the lock.
    name: The lock file; locks with different names are independent.

  Raises:
    OSError: The folder is not writable.
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
  """Returns whether a process holds the lock of a folder."""
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
  """Locks the workdir of a run; a workdir in a bucket cannot be locked."""

  def busy() -> None:
    raise UserError(
      f'{workdir} is in use by a run that is still running: stop it first, or '
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
