"""Ctrl-C: once to stop after the round and save, twice to stop at once."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
  """Yields a function that says whether Ctrl-C was pressed."""
  if threading.current_thread() is not threading.main_thread():
    yield lambda: False  # signals go to the main thread alone
    return
  pressed = threading.Event()

  def press(*_):
    pressed.set()
    signal.signal(signal.SIGINT, before)
    print('\nStopping after this round (Ctrl-C again: at once)', flush=True)

  before = signal.signal(signal.SIGINT, press)
  try:
    yield pressed.is_set
  finally:
    signal.signal(signal.SIGINT, before)
