"""Prepares a process and then becomes a trial.

  python child.py PARENT_PID CORES COMMAND...

This is a program of its own because the calls below belong between fork and
exec, where a process with threads cannot safely run Python code.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
  """Requests SIGTERM at the parent's death, pins the cores, and executes."""
  parent, cores, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
  if sys.platform == 'linux':
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
      sys.exit(128 + signal.SIGTERM)  # the parent died before the request
    if cores:
      os.sched_setaffinity(0, map(int, cores.split(',')))
  os.execvp(command[0], command)


if __name__ == '__main__':
  main()
