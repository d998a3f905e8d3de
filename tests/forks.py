"""Runs command lines of launch.py in forks of one process.

That process has imported everything and read the digits, which takes a fresh
one seconds. It starts no device, so that it can fork.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from conftest import ROOT

SERVER = """
import functools, importlib, json, os, sys
from absl import app
import launch
import gan_jax.modes.evaluate, gan_jax.modes.benchmark, gan_jax.training.loop

digits = importlib.import_module('gan_jax.data.digits')
digits.read_examples = functools.cache(digits.read_examples)
vanilla = importlib.import_module('experiments.vanilla_mnist')
gan_jax.data.make(vanilla.get_config('tiny'))

for line in sys.stdin:
  sys.argv, folder, outputs, code = json.loads(line)
  child = os.fork()
  if not child:
    os.chdir(folder)
    for number, path in enumerate(outputs, start=1):
      os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY), number)
    if code:
      exec(code)
      sys.exit()
    app.run(launch.main, argv=sys.argv, flags_parser=launch.parse)
  print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Done(NamedTuple):
  """The exit code and the output of a command line."""

  returncode: int
  stdout: str
  stderr: str


class Forks:
  """Runs one command line of launch.py after the other."""

  def __init__(self, server: subprocess.Popen):
    self._server = server

  def run(
    self, *flags: object, cwd: Path = ROOT, check: bool = False, code: str = ''
  ) -> Done:
    """Runs launch.py; `code`: runs that after the imports instead."""
    with tempfile.TemporaryDirectory() as folder:
      outputs = [f'{folder}/stdout', f'{folder}/stderr']
      argv = ['launch.py', *map(str, flags)]
      request = json.dumps([argv, str(cwd), outputs, code])
      print(request, file=self._server.stdin, flush=True)
      returncode = int(self._server.stdout.readline())
      done = Done(returncode, *(Path(path).read_text() for path in outputs))
    assert not (check and returncode), done.stderr
    return done


@contextlib.contextmanager
def serve() -> Iterator[Forks]:
  """Starts the process that forks."""
  with subprocess.Popen(
    [sys.executable, '-c', SERVER],
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  ) as process:
    yield Forks(process)
    process.stdin.close()
