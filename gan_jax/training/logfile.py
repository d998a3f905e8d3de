"""What libraries say at length is written to a file, not to the terminal.

A save that fails is one line for the user; Orbax logs hundreds.
"""

import logging
import sys
import threading
import traceback
from pathlib import Path

from gan_jax.files import local

NAME = 'log.txt'
# Of Orbax, and of what runs in the background for it.
LOGGERS = ('absl', 'asyncio')


class _LogFile(logging.Handler):
  """Appends to the file of a run; as long as there is no run, prints.

  What cannot be written is dropped: the disk may be full.
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
  """For this process, from now on: also the errors of background threads.

  The main thread's are printed as ever.
  """
  handler = _LogFile(workdir)
  for name in LOGGERS:
    logger = logging.getLogger(name)
    logger.handlers, logger.propagate = [handler], False
  log = logging.getLogger('asyncio').error

  def of_any(kind, error, trace) -> None:
    """tensorstore's threads, which are not Python's, end up here."""
    if threading.current_thread() is threading.main_thread():
      sys.__excepthook__(kind, error, trace)
    else:
      log(''.join(traceback.format_exception(kind, error, trace)))

  sys.excepthook = of_any
  threading.excepthook = lambda args: log(
    f'in thread {args.thread and args.thread.name}',
    exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
  )
  sys.unraisablehook = lambda args: log(
    f'{args.err_msg or "Exception ignored in"} {args.object!r}',
    exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
  )
