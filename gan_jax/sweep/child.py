"""Prepares a process and then becomes a trial.

  python child.py PARENT_PID CORES LOCK COMMAND...

This is a program of its own because the calls below belong between fork and
exec, where a process with threads cannot safely run Python code.
"""

import contextlib
import ctypes
import fcntl
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
  """Requests SIGTERM at the parent's death, pins the cores, and executes.

  Before that, it waits until no process of a lost parent holds the lock of the
  trial's workdir: that process is saving.
  """
  parent, cores, lock, *command = sys.argv[1:]
  if sys.platform == 'linux':
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
      sys.exit(128 + signal.SIGTERM)  # the parent died before the request
    if cores:
      os.sched_setaffinity(0, map(int, cores.split(',')))
  if os.path.exists(lock):
    # A file system may have no locks.
    with open(lock) as file, contextlib.suppress(OSError):
      fcntl.flock(file, fcntl.LOCK_EX)
  os.execvp(command[0], command)


if __name__ == '__main__':
  main()
