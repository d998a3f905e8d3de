"""The local cache of the shards of a set in a bucket, of bounded size.

All processes of a machine that read a set share its cache. They agree through
the files alone, so a killed process leaves nothing that the others wait for.

`.lock` is held while space is reserved, for milliseconds. `NAME.part` is the
space of a shard that is being fetched, into `NAME.new`. Who fetches it holds
the lock of `NAME.part`, and renames `NAME.new` to `NAME` when it is whole. The
kernel releases the lock of a killed process; the next process that needs space
removes such files. The modification time of `NAME` is the time of its last use:
the shard that was used least recently is removed first.

The sizes of all of these, those that are being fetched counted as whole, never
exceed the limit. A removed shard that a process still reads is freed when that
process opens its next one.
"""

import contextlib
import fcntl
import hashlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from etils import epath, epy

from gan_jax.errors import UserError
from gan_jax.files import held, write_whole

with epy.lazy_imports():  # only a set that is streamed needs it
  import fsspec

# The number of shards that a process fetches at once, ahead of their use.
DOWNLOADS = 4
# A read that fails is repeated after 0.2, 0.4 and 0.8 seconds.
ATTEMPTS, FIRST_WAIT_SECONDS = 4, 0.2
# The interval at which a process looks for space again.
POLL_SECONDS = 0.02

PART, NEW = '.part', '.new'

T = TypeVar('T')
READ: Callable[[str], BinaryIO] = partial(open, mode='rb')


class Cache:
  """A local folder with some of the files of another one.

  Args:
    remote: The folder, in a bucket or on another disk.
    folder: The local folder.
    sizes: The bytes of each file that may be requested, by name.
    limit: The largest total of the cached files in bytes.
  """

  def __init__(
    self,
    remote: epath.Path,
    folder: Path,
    sizes: Mapping[str, int],
    limit: int,
  ):
    self._args = remote, folder, dict(sizes), limit
    self._remote, self.folder, self.sizes, self.limit = self._args
    self._files, self._path = fsspec.core.url_to_fs(str(remote))
    self._number = -1
    # The files announced with this number; the last of them are fetched.
    self._plans: list[frozenset[str]] = [frozenset()]
    self._queue: deque[str] = deque()
    self._threads = 0
    self._mutex = threading.Lock()

  @property
  def _planned(self) -> frozenset[str]:
    return self._plans[-1]

  def __reduce__(self):
    return Cache, self._args  # each process has threads of its own

  def open(self, name: str, opener: Callable[[str], T] = READ) -> T:
    """Opens the local copy of a file, which it fetches if necessary.

    Raises:
      UserError: The file cannot be read.
    """
    path = self.folder / name
    while True:
      while not self._fetch(name, wait=True):
        time.sleep(POLL_SECONDS)
      try:
        return opener(str(path))
      except Exception:
        if path.exists():
          raise
        # It was removed again, by a process that needed its space.

  def sha256(self, name: str) -> str:
    """Returns the SHA-256 of a file, which is read once for all runs."""
    note = self.folder / f'{name}.sha256'
    if not note.exists():
      with self.open(name) as file:
        write_whole(note, hashlib.file_digest(file, 'sha256').hexdigest())
    return note.read_text()

  def ahead(self, number: int, names: Sequence[str]) -> None:
    """Fetches files in threads, in this order.

    Until the next call, other files are removed before these are.

    Args:
      number: It grows along the stream. Announcements of a thread that lags
        behind the others are ignored.
      names: The files. With one number they change once a stage of progressive
        growing begins.
    """
    plan = frozenset(names)
    with self._mutex:
      if number < self._number <= number + 2:
        return
      plans = self._plans if number == self._number else []
      if plan in plans:
        return
      self._number, self._plans = number, [*plans, plan]
      self._queue = deque(names)
      missing = DOWNLOADS - self._threads
      self._threads = DOWNLOADS
    for _ in range(missing):
      threading.Thread(target=self._work, daemon=True).start()

  def _work(self) -> None:
    """Fetches the files of the queue until it is empty."""
    while True:
      with self._mutex:
        if not self._queue:
          self._threads -= 1
          return
        plan, name = self._planned, self._queue.popleft()
      try:
        while plan is self._planned and not self._fetch(name, wait=False):
          time.sleep(POLL_SECONDS)
      except UserError:
        pass  # who needs the file will raise it

  def _fetch(self, name: str, wait: bool) -> bool:
    """Fetches a file; returns whether it exists now.

    Args:
      name: The file.
      wait: Whether it is needed now: then this waits for another thread or
        process that is fetching it, and removes planned files if it must.
        Otherwise, a file that another one is fetching counts as fetched.
    """
    target = self.folder / name
    if touch(target):
      return True
    with contextlib.ExitStack() as stack:
      with held(self.folder, lambda: None):
        if touch(target):
          return True
        part = self.folder / f'{name}{PART}'
        file = stack.enter_context(part.open('ab'))
        mine = _try_lock(file)
        # Its owner may have finished since, or ended.
        if mine and (touch(target) or os.fstat(file.fileno()).st_nlink == 0):
          return target.exists()
        if mine and not self._make_room(name, wait):
          part.unlink()
          return False
      if not mine:
        if wait:
          fcntl.flock(file, fcntl.LOCK_EX)  # until it is whole, or failed
        return not wait
      new = self.folder / f'{name}{NEW}'
      try:
        self._download(name, new)
        new.replace(target)
      finally:
        new.unlink(missing_ok=True)
        part.unlink(missing_ok=True)
    return True

  def _make_room(self, name: str, needed: bool) -> bool:
    """Removes files until there is space for one more; returns success."""
    free = self.limit - self.sizes[name]
    candidates = []
    for other, file in self._entries():
      if other == name:
        continue
      free -= self.sizes[other]
      if file.suffix == PART:
        if _remove_if_abandoned(file):
          free += self.sizes[other]
      elif needed or other not in self._planned:
        used = file.stat().st_mtime_ns
        candidates.append((other in self._planned, used, file))
    for _, _, file in sorted(candidates):
      if free >= 0:
        break
      file.unlink()
      free += self.sizes[file.name]
    return free >= 0

  def _entries(self) -> Iterator[tuple[str, Path]]:
    """Yields the files that are in the cache: whole, or being fetched."""
    for file in self.folder.iterdir():
      name = file.name.removesuffix(PART)
      if name in self.sizes:
        yield name, file

  def _download(self, name: str, new: Path) -> None:
    """Copies a file as a whole; repeats it if it fails."""
    for attempt in range(ATTEMPTS):
      if attempt:
        time.sleep(FIRST_WAIT_SECONDS * 2 ** (attempt - 1))
      try:
        self._files.get_file(f'{self._path}/{name}', str(new))
        size = new.stat().st_size
        if size == self.sizes[name]:
          return
        problem = f'{size:,} bytes, not {self.sizes[name]:,}'
      except Exception as error:  # each kind of bucket raises its own
        line = ' '.join(str(error).split())[:200]
        problem = f'{type(error).__name__}: {line}'
    raise UserError(
      f'cannot read {self._remote / name} in {ATTEMPTS} attempts ({problem}): '
      'repeat the command when the storage can be reached'
    )


def open_cache(
  remote: epath.Path,
  folder: Path,
  sizes: Mapping[str, int],
  limit: int,
  version: str,
) -> Cache:
  """Opens a cache; removes the files of another version of the folder."""
  note = folder / '.version'
  try:
    with held(folder, lambda: None):
      if not note.exists() or note.read_text() != version:
        for file in folder.iterdir():
          if file.name != '.lock':
            file.unlink()
        note.write_text(version)
  except OSError as error:
    raise UserError(
      f'cannot write to {folder}: {error.strerror}; set the environment '
      'variable XDG_CACHE_HOME to another folder for caches'
    ) from error
  return Cache(remote, folder, sizes, limit)


def touch(file: Path) -> bool:
  """Marks a file as used now; returns whether it exists."""
  try:
    os.utime(file)
  except FileNotFoundError:
    return False
  return True


def _try_lock(file: BinaryIO) -> bool:
  """Locks an open file, unless another thread or process has locked it."""
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  return True


def _remove_if_abandoned(part: Path) -> bool:
  """Removes a partial file that no process is writing any more.

  Returns:
    Whether its space is free: not if its owner has just finished, or failed.
  """
  try:
    file = part.open('r+b')
  except FileNotFoundError:
    return False
  with file:
    if not _try_lock(file) or os.fstat(file.fileno()).st_nlink == 0:
      return False
    part.with_suffix(NEW).unlink(missing_ok=True)
    part.unlink()
    return not part.with_suffix('').exists()
