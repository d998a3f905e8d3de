"""Becomes a trial: python child.py PARENT CORES COMMAND...

A process of its own, since what is to be said between fork and exec cannot be
said from a process with threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
  """Asks to be told (SIGTERM) when the parent dies; takes its cores."""
  parent, cores, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
  if sys.platform == 'linux':
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
      sys.exit(128 + signal.SIGTERM)  # it has died before we could ask
    if cores:
      os.sched_setaffinity(0, map(int, cores.split(',')))
  os.execvp(command[0], command)


if __name__ == '__main__':
  main()
