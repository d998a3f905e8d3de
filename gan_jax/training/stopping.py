"""Stops a run on request: Ctrl-C by a user, SIGTERM for a preemption.

After the first request, the run finishes the current dispatch, or the current
batch of an evaluation, saves its state and stops. A second Ctrl-C stops it at
once.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from gan_jax import devices

# () -> the received signal; None: no stop was requested.
StopRequested = Callable[[], signal.Signals | None]


@contextlib.contextmanager
def interruptible() -> Iterator[StopRequested]:
  """Yields a function that returns whether to stop, and then always does.

  In a distributed run, JAX handles SIGTERM and synchronizes the processes, so
  that all of them stop after the same call. See `devices.preempted`.
  """
  is_preempted = False

  def preempted() -> bool:
    nonlocal is_preempted
    is_preempted = is_preempted or devices.preempted()
    return is_preempted

  if threading.current_thread() is not threading.main_thread():
    # Python delivers signals to the main thread only.
    yield lambda: signal.SIGTERM if preempted() else None
    return
  received: list[signal.Signals] = []

  def handle(number: int, _) -> None:
    received.append(signal.Signals(number))
    print('\nSaving after this iteration, then stopping', flush=True)
    if number == signal.SIGINT:
      signal.signal(signal.SIGINT, before[signal.SIGINT])
      print('(Ctrl-C again stops at once)', flush=True)
      if devices.is_distributed():
        os.kill(os.getpid(), signal.SIGTERM)

  def stop_requested() -> signal.Signals | None:
    if devices.is_distributed():
      return (received or [signal.SIGTERM])[0] if preempted() else None
    return received[0] if received else None

  handled = [signal.SIGINT]
  if not devices.is_distributed():
    handled.append(signal.SIGTERM)
  with handling(handled, handle) as before:
    yield stop_requested


@contextlib.contextmanager
def handling(
  signals: Sequence[int], handle: Callable[[int, Any], None]
) -> Iterator[Mapping[int, Any]]:
  """Handles signals by a function; yields the previous handlers."""
  before = {number: signal.signal(number, handle) for number in signals}
  try:
    yield before
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
