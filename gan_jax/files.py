"""Files that are written whole or not at all, and where the cached ones are."""

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


def cache_folder() -> Path:
  """Of this user, on this machine: what can be made again."""
  base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
  return Path(base) / 'gan_jax'
