"""One run a workdir: two at once would overwrite each other."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from gan_jax.bucket import is_remote
from gan_jax.errors import UserError

NAME = '.lock'


@contextlib.contextmanager
def locked(workdir: str | Path) -> Iterator[None]:
  """Holds the workdir, which is made if need be; the kernel lets it go.

  A workdir in a bucket cannot be held.
  """
  if is_remote(workdir):
    yield
    return
  try:
    folder = Path(workdir).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / NAME).open('w')
  except OSError as error:
    raise UserError(f'cannot write to {workdir}: {error.strerror}') from error
  with file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise UserError(
        f'{workdir} is in use by a run that is still going: stop it first, or '
        'name another --workdir'
      ) from None
    except OSError:
      pass  # a file system that has no locks
    yield
