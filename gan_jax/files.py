"""Files that are written whole or not at all, and where the cached ones are."""

import contextlib
import hashlib
import os
from pathlib import Path

from etils import epath


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
