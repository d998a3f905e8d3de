"""Redirects verbose library logs from the terminal to WORKDIR/log.txt.

For one failed save, the user sees a one-line warning; Orbax logs hundreds.
"""

import logging
import sys
import threading
import traceback
from pathlib import Path

from gan_jax.files import local

NAME = 'log.txt'
# The loggers of Orbax and its background tasks.
LOGGERS = ('absl', 'asyncio')


class _LogFile(logging.Handler):
  """Appends to the log file of a run; prints until the run exists.

  Records that cannot be written are dropped: the disk may be full.
  """

  def __init__(self, workdir: str | Path):
    super().__init__()
    self._folder = Path(local(workdir)).expanduser()
    self.setFormatter(
      logging.Formatter('%(asctime)s %(levelname)s %(name)s: %(message)s')
    )

  def emit(self, record: logging.LogRecord) -> None:
    text = self.format(record) + '\n'
    try:
      if not (self._folder / 'metrics.jsonl').exists():
        sys.stderr.write(text)
        return
      with (self._folder / NAME).open('a') as file:
        file.write(text)
    except OSError:
      pass


def divert(workdir: str | Path) -> None:
  """Redirects library logs and background-thread errors to the log file.

  This affects the whole process. Errors of the main thread are still printed.
  """
  handler = _LogFile(workdir)
  for name in LOGGERS:
    logger = logging.getLogger(name)
    logger.handlers, logger.propagate = [handler], False
  log = logging.getLogger('asyncio').error

  def excepthook(kind, error, trace) -> None:
    """Also handles errors of tensorstore's threads (not started by Python)."""
    if threading.current_thread() is threading.main_thread():
      sys.__excepthook__(kind, error, trace)
    else:
      log(''.join(traceback.format_exception(kind, error, trace)))

  sys.excepthook = excepthook
  threading.excepthook = lambda args: log(
    f'in thread {args.thread and args.thread.name}',
    exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
  )
  sys.unraisablehook = lambda args: log(
    f'{args.err_msg or "Exception ignored in"} {args.object!r}',
    exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
  )
