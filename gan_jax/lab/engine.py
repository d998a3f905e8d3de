"""The engine: a thread that steps the games, and one that compiles them."""

import hashlib
import itertools
import queue
import re
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from gan_jax.errors import UserError
from gan_jax.files import write_whole
from gan_jax.lab import interface
from gan_jax.lab.presets import PRESETS
from gan_jax.lab.program import make_program
from gan_jax.lab.session import Session
from gan_jax.lab.settings import (
  IN_1D,
  Settings,
  check,
  experiment_file,
  make_config,
  program_key,
  settings_of,
)
from gan_jax.lab.uploads import drawing_path

# Programs and pages that are kept; the oldest go first.
MAX_PROGRAMS, MAX_SESSIONS = 48, 8
# Seconds that the engine sleeps when it has nothing to do.
IDLE_SECONDS = 0.01
# Priorities of compilation: a page waits; a page may soon need it; none waits.
NOW, SOON, AHEAD = 0, 1, 2
# Functions of a program that are compiled after the others.
REST = ('disc', 'inspect', 'gen')


class Engine:
  """Steps the games of all pages, in a thread of its own.

  Args:
    base: The experiment that the lab was started with.
    folder: Where drawings and saved experiments are kept.
    story: The preset that pages begin with; None: the experiment.
    ahead: Whether to compile what is not yet needed: the stories, slow motion,
      and the players alone.
  """

  def __init__(
    self,
    base: ConfigDict,
    folder: Path,
    story: str | None = None,
    ahead: bool = True,
  ):
    interface.check_toy(base)
    self._base, self.folder, self.story = base, folder, story
    self._ahead = ahead
    self.settings = settings_of(base)
    if story is not None:
      self.settings = check(PRESETS[story].settings)
    self._sessions: OrderedDict[str, Session] = OrderedDict()
    self._programs: OrderedDict[str, Future] = OrderedDict()
    self._compile_queue: queue.PriorityQueue = queue.PriorityQueue()
    self._order = itertools.count()
    self._lock = threading.Lock()
    self._stopping = threading.Event()
    self._threads = [
      threading.Thread(target=target, daemon=True, name=f'lab-{name}')
      for name, target in (('engine', self._run), ('compile', self._compile))
    ]
    for thread in self._threads:
      thread.start()
    self.program(self.settings)
    if ahead:
      self._compile_ahead()

  def close(self) -> None:
    """Stops both threads."""
    self._stopping.set()
    self._enqueue(-1, None)
    for thread in self._threads:
      thread.join(timeout=30)

  def session(self, tab: str) -> Session:
    """Returns the session of a page; a page that reloads keeps its games."""
    with self._lock:
      if tab not in self._sessions:
        while len(self._sessions) >= MAX_SESSIONS:
          self._evict()
        self._sessions[tab] = Session(self.program, self.save, self.settings)
      self._sessions.move_to_end(tab)
      return self._sessions[tab]

  def _evict(self) -> None:
    """Drops the oldest session, if possible one without a page."""
    idle = [tab for tab, x in self._sessions.items() if x.send is None]
    tab = idle[0] if idle else next(iter(self._sessions))
    dropped = self._sessions.pop(tab)
    if dropped.send is not None:
      dropped.send('')  # closes its connection

  def config(self, settings: Settings) -> ConfigDict:
    """Returns the config of settings.

    Raises:
      UserError: The drawing does not exist.
    """
    source = settings['data.source']
    kind, _, name = source.partition(':')
    dim = 1 if name in IN_1D else 2
    if kind == 'drawing':
      path, dim = drawing_path(self.folder, name)
      source = f'drawing:{path}'
    return make_config(self._base, settings, source, dim)

  def program(self, settings: Settings, priority: int = NOW) -> Future:
    """Returns the future (program, config) of settings."""
    result: Future = Future()
    try:
      config = self.config(settings)
    except UserError as error:
      result.set_exception(error)
      return result
    key = program_key(settings)
    with self._lock:
      compiled = self._programs.get(key)
      if compiled is None or (compiled.done() and compiled.exception()):
        compiled = self._programs[key] = Future()
        while len(self._programs) > MAX_PROGRAMS:
          self._programs.popitem(last=False)
      self._programs.move_to_end(key)
    if not compiled.done():  # perhaps it was queued with a lower priority
      self._enqueue(priority, partial(_make, compiled, config))

    def finish(compiled: Future) -> None:
      if error := compiled.exception():
        result.set_exception(error)
        return
      made = compiled.result()
      if self._ahead and priority == NOW:
        for name in REST:
          self._enqueue(SOON, partial(made.function, name))
      result.set_result((made, config))

    compiled.add_done_callback(finish)
    return result

  def save(self, settings: Settings) -> dict[str, Any]:
    """Writes settings as an experiment; returns its path, command and text."""
    config = self.config(settings)
    kind, _, name = settings['data.source'].partition(':')
    digest = hashlib.sha256(program_key(settings).encode())
    digest.update(repr(sorted(settings.items())).encode())
    stem = re.sub(r'\W', '_', 'drawing' if kind == 'drawing' else name)
    path = self.folder / f'{stem}_{digest.hexdigest()[:8]}.py'
    text = experiment_file(config, str(path))
    try:
      self.folder.mkdir(parents=True, exist_ok=True)
      write_whole(path, text)
    except OSError as error:
      raise UserError(f'cannot write {path}: {error.strerror}') from error
    command = f'python launch.py --config={path}'
    return {'path': str(path), 'command': command, 'text': text}

  def _enqueue(self, priority: int, task: Callable[[], None] | None) -> None:
    self._compile_queue.put((priority, next(self._order), task))

  def _compile_ahead(self) -> None:
    for preset in PRESETS.values():
      settings = check(preset.settings)
      self.program(settings, AHEAD)
      if preset.compare is not None:
        self.program(check({**settings, **preset.compare}), AHEAD)

  def _run(self) -> None:
    while not self._stopping.is_set():
      with self._lock:
        sessions = list(self._sessions.values())
      worked = [_tick(session) for session in sessions]
      if not any(worked):
        time.sleep(IDLE_SECONDS)

  def _compile(self) -> None:
    """Compiles what is queued, the most urgent first."""
    while True:
      _, _, task = self._compile_queue.get()
      if task is None or self._stopping.is_set():
        return
      task()


def _tick(session: Session) -> bool:
  """Ticks a session; its failure stops this session only."""
  try:
    return session.tick()
  except Exception as error:  # such as too little memory
    traceback.print_exc()
    session.fail(error)
    return False


def _make(future: Future, config: ConfigDict) -> None:
  """Compiles a program, unless that was done meanwhile."""
  if future.done():
    return
  try:
    future.set_result(make_program(config))
  except Exception as error:
    future.set_exception(error)
