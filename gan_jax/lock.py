"""One process at a time: in a workdir, and where a set is being prepared."""

import contextlib
import fcntl
from collections.abc import Callable, Iterator
from pathlib import Path

from etils import epath

from gan_jax.bucket import is_remote
from gan_jax.errors import UserError


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
