"""Errors that a user can correct: one line, without a traceback."""

import difflib
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

# Exit codes of launch.py that a sweep distinguishes: the run diverged; the run
# saved its state after SIGTERM and can be run again (EX_TEMPFAIL).
DIVERGED, PREEMPTED = 3, 75


class UserError(ValueError):
  """A mistake that the user can correct.

  The message is one line: what is wrong, and what to do.
  """


class Preempted(Exception):
  """The run received SIGTERM and has saved its state."""


class Diverged(UserError):
  """A loss or a gradient is not finite."""


def warn(message: str) -> None:
  """Prints a warning of one line."""
  print(f'Warning: {message}', file=sys.stderr, flush=True)


def where_in(path: str, error: Exception) -> str:
  """Returns the file, and the line in it that caused the error."""
  lines = [
    frame.lineno
    for frame in traceback.extract_tb(error.__traceback__)
    if Path(frame.filename) == Path(path)
  ]
  return f'{path}:{lines[-1]}' if lines else path


def suggest(name: str, valid: Iterable[str]) -> str:
  """Suggests the most similar valid name: `; did you mean 'x'?`, or ''.

  For a dotted name, only the valid names in the same block are compared, by
  the part after the last dot, if that block has any.
  """
  valid = list(valid)
  block, dot, leaf = name.rpartition('.')
  siblings = [x for x in valid if x.rpartition('.')[0] == block]
  leaves = [x.rpartition('.')[2] for x in siblings]
  close = [block + dot + x for x in difflib.get_close_matches(leaf, leaves, 1)]
  if not siblings:
    close = difflib.get_close_matches(name, valid, 1, cutoff=0.8)
  return f'; did you mean {close[0]!r}?' if close else ''
