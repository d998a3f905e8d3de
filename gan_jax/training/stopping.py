"""Being told to stop: Ctrl-C by a user, SIGTERM by a scheduler.

Once: after the iteration, and saved. Ctrl-C twice: at once.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

from gan_jax import devices

# () -> the signal to stop for, once there is one.
Asked = Callable[[], signal.Signals | None]


@contextlib.contextmanager
def interruptible() -> Iterator[Asked]:
  """Yields a function, to be asked after each dispatch, whether to stop.

  On several processes all stop after the same iteration: JAX has the handler of
  SIGTERM there, and they agree on an iteration.
  """
  if threading.current_thread() is not threading.main_thread():
    # Signals go to the main thread alone.
    yield lambda: signal.SIGTERM if devices.preempted() else None
    return
  told: list[signal.Signals] = []

  def tell(number: int, _) -> None:
    told.append(signal.Signals(number))
    print('\nStopping after this iteration, to save', flush=True)
    if number == signal.SIGINT:
      signal.signal(signal.SIGINT, before[signal.SIGINT])
      print('(Ctrl-C again: at once)', flush=True)
      if devices.is_one_of_many():
        os.kill(os.getpid(), signal.SIGTERM)

  def asked() -> signal.Signals | None:
    if devices.is_one_of_many():
      stop = devices.preempted()
      return (told or [signal.SIGTERM])[0] if stop else None
    return told[0] if told else None

  handled = [signal.SIGINT]
  if not devices.is_one_of_many():
    handled.append(signal.SIGTERM)
  before = {number: signal.signal(number, tell) for number in handled}
  try:
    yield asked
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
