"""Files that are written whole or not at all, and where the cached ones are."""

import contextlib
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


def cache_folder() -> Path:
  """Of this user, on this machine: what can be made again."""
  base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
  return Path(base) / 'gan_jax'
