"""Consistency checks and failure detection between the processes of a run.

When a process is lost, JAX lets the others wait for minutes or aborts them with
a C++ stack trace. Therefore process 0 holds a TCP connection to every other
process, and a thread reads each end. A connection that closes without a goodbye
message means that the process on the other end was lost.

A message is one line of JSON: [exit code, message for the user]. An empty
message for the user is a goodbye.
"""

import collections
import contextlib
import hashlib
import importlib.util
import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

import jax

from gan_jax import devices
from gan_jax.errors import PREEMPTED, UserError, warn
from gan_jax.metrics.scores import protocol_digest

# Timeout for all processes to start.
JOIN_SECONDS = 300
# Timeout of the connections; delay before a process that receives an error
# message exits, so that it can report the same error itself; how long process
# 0 waits for the others, which JAX aborts when process 0 exits.
CONNECT_SECONDS, GRACE_SECONDS, LAST_SECONDS = 20.0, 1.0, 5.0
# After an error in a collective: how long to wait for a message with the cause.
VERDICT_SECONDS = 3.0
# Idle seconds before the first probe, seconds between probes, and number of
# probes. A machine that loses power does not close its connections.
KEEPALIVE = {'TCP_KEEPIDLE': 10, 'TCP_KEEPINTVL': 5, 'TCP_KEEPCNT': 4}
# The handshake: a process sends a token and its index; process 0 answers.
PROCESS_DIGITS, WELCOME = 6, b'welcome'
# Number of differences that an error message lists.
MOST_LISTED = 5

# Forwards the stderr of C++ code with a delay of one second, so that the output
# of JAX about a lost process can be dropped.
_DELAY = """
import os, queue, threading, time
chunks = queue.Queue()
def read():
  while chunk := os.read(0, 65536):
    chunks.put((time.monotonic() + 1, chunk))
  chunks.put((0, b''))
threading.Thread(target=read).start()
while True:
  due, chunk = chunks.get()
  if not chunk:
    break
  time.sleep(max(0, due - time.monotonic()))
  os.write(2, chunk)
"""

_links: dict[int, socket.socket] = {}
_readers: list[threading.Thread] = []
_delayed: list[subprocess.Popen] = []
# Acquired, and never released, by the thread that ends this process.
_ending = threading.Lock()


def join(
  coordinator_address: str | None,
  num_processes: int | None,
  process_id: int | None,
) -> None:
  """Connects the processes of a distributed run, if there are several.

  Call this before anything that initializes devices. Without an address, JAX
  detects the processes of a TPU slice, of `srun` and of `mpirun`.

  Raises:
    UserError: An argument is missing or invalid.
  """
  given = coordinator_address, num_processes, process_id
  if coordinator_address is not None:
    if None in given:
      raise UserError(
        '--coordinator_address needs --num_processes and --process_id'
      )
    host, _, port = coordinator_address.rpartition(':')
    if not (host and port.isdigit() and 0 <= process_id < num_processes):
      raise UserError(
        f'--coordinator_address={coordinator_address} must be HOST:PORT, and '
        f'--process_id={process_id} must be from 0 to less than '
        f'--num_processes={num_processes}'
      )
    if process_id == 0:
      _check_port(coordinator_address, int(port))
    _initialize(*given)
    return
  if any(x is not None for x in given):
    raise UserError('--num_processes and --process_id need an address: '
                    '--coordinator_address=HOST:PORT')  # fmt: skip
  # Not for a single task: JAX would give it only one of its GPUs.
  tasks = ('SLURM_STEP_NUM_TASKS', 'OMPI_COMM_WORLD_SIZE')
  if any(int(os.environ.get(name, 1)) > 1 for name in tasks):
    _initialize()
  elif importlib.util.find_spec('libtpu'):
    with contextlib.suppress(ValueError):  # libtpu without a TPU cluster
      _initialize()


def _check_port(address: str, port: int) -> None:
  """Raises UserError for a port in use, with which JAX may crash."""
  try:
    socket.create_server(('', port)).close()
  except (OSError, OverflowError) as error:
    raise UserError(
      f'--coordinator_address={address}: process 0 cannot listen on that port '
      f'({error}); choose another'
    ) from error


def _initialize(*given: Any) -> None:
  """Waits for the other processes; exits with a message if one is missing.

  JAX's own timeout aborts the process and prints a stack trace.
  """
  timer = threading.Timer(
    JOIN_SECONDS,
    _give_up,
    [
      f'not all processes connected within {JOIN_SECONDS} seconds: run the '
      'same command on every machine'
    ],
  )
  timer.daemon = True
  timer.start()
  try:
    jax.distributed.initialize(*given, initialization_timeout=2 * JOIN_SECONDS)
  except jax.errors.JaxRuntimeError as error:
    line = ' '.join(str(error).split())[:200]
    _give_up(f'the processes cannot connect: {line}')
  finally:
    timer.cancel()


def _give_up(line: str) -> NoReturn:
  """Exits at once: JAX is partly initialized and would crash later."""
  print(f'launch.py: {line}', file=sys.stderr, flush=True)
  os._exit(2)


def watch() -> None:
  """Connects the processes and starts to watch them; call once after `join`.

  Raises:
    UserError: The processes have different numbers of devices. All of them
      raise it.
  """
  if not devices.is_distributed():
    return
  counts = collections.Counter(d.process_index for d in jax.devices())
  if len(set(counts.values())) > 1:
    listed = ', '.join(f'{n} in process {i}' for i, n in sorted(counts.items()))
    raise UserError(
      f'all processes must have the same number of devices: {listed}'
    )
  _links.update(_accept() if devices.is_main() else _connect())
  if len(_links) < (jax.process_count() - 1 if devices.is_main() else 1):
    warn(
      f'process {jax.process_index()} is connected to only {len(_links)} of '
      'the other processes: if one is lost, this process may notice it only '
      'after minutes'
    )
  _delay_stderr()
  for process, link in _links.items():
    for name, value in KEEPALIVE.items():
      if hasattr(socket, name):
        link.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    link.settimeout(None)
    reader = threading.Thread(target=_read, args=(process, link), daemon=True)
    _readers.append(reader)
    reader.start()


def agree(what: Mapping[str, Any]) -> None:
  """Checks that all processes have the same values.

  Args:
    what: The values by name.

  Raises:
    UserError: Some values differ; the message lists them. All processes raise
      it.
  """
  if not devices.is_distributed():
    return
  if len(set(devices.gather(protocol_digest(what)))) == 1:
    return
  everyone = [json.loads(text) for text in devices.gather(json.dumps(what))]
  found = []
  for key in sorted(set().union(*everyone)):
    values = [json.dumps(one.get(key)) for one in everyone]
    other = next((i for i, x in enumerate(values) if x != values[0]), None)
    if other is not None:
      difference = (
        f'{values[0]} in process 0, {values[other]} in process {other}'
      )
      found.append(f'{key} ({difference})')
  more = f'; and {len(found) - MOST_LISTED} more' * (len(found) > MOST_LISTED)
  raise UserError(
    'all processes of a run must start with the same settings, but differ in '
    f'{"; ".join(found[:MOST_LISTED])}{more}'
  )


def versions() -> dict[str, str]:
  """Returns the versions of JAX and digests of this package's sources."""
  root = Path(__file__).parent.parent
  digest = lambda file: hashlib.sha256(file.read_bytes()).hexdigest()[:8]
  sources = {
    f'gan_jax/{file.relative_to(root)}': digest(file)
    for file in sorted(root.rglob('*.py'))
  }
  libraries = {name: metadata.version(name) for name in ('jax', 'jaxlib')}
  return {**libraries, **sources}


def part() -> None:
  """Sends a goodbye: this process no longer needs the others."""
  if _links:
    _claim_exit()
    _send(0, '')


def leave(code: int, line: str = '') -> None:
  """Exits now; with a message, all other processes exit too.

  Args:
    code: The exit code of all processes.
    line: The reason, which the other processes print.
  """
  _claim_exit()
  _send(code, line and f'process {jax.process_index()} has stopped: {line}')
  _end(code)


def _claim_exit() -> None:
  """Returns in the first thread that calls it; other threads wait and exit."""
  if not _ending.acquire(blocking=False):
    time.sleep(LAST_SECONDS + 1)


def _send(code: int, line: str) -> None:
  for link in _links.values():
    with contextlib.suppress(OSError):
      link.sendall(json.dumps([code, line]).encode() + b'\n')


def _end(code: int) -> None:
  """Exits; process 0 first waits for the others to exit."""
  sys.stdout.flush()
  sys.stderr.flush()
  if devices.is_main():
    if not _readers:
      time.sleep(GRACE_SECONDS)
    until = time.monotonic() + LAST_SECONDS
    for reader in _readers:
      if reader is not threading.current_thread():
        reader.join(max(0.0, until - time.monotonic()))
  os._exit(code)


def _read(process: int, link: socket.socket) -> None:
  """Waits for a message from a process, or for the loss of its connection."""
  code, line = PREEMPTED, (
    f'process {process} was lost: run the same command on all processes to '
    'resume from the last checkpoint'
  )  # fmt: skip
  with contextlib.suppress(OSError), link.makefile() as messages:
    message = messages.readline()
    if message.endswith('\n'):
      code, line = json.loads(message)
      if not line:
        return
      time.sleep(GRACE_SECONDS)
  if not _ending.acquire(blocking=False):
    return
  for delay in _delayed:
    delay.kill()
  _send(code, line)
  print(f'launch.py: {line}', file=sys.stderr)
  _end(code)


def _accept() -> dict[int, socket.socket]:
  """Accepts the connections to process 0, until a timeout."""
  token, links = secrets.token_hex(16), {}
  count = jax.process_count() - 1
  with socket.create_server(('', 0), backlog=count) as server:
    port = server.getsockname()[1]
    devices.gather(json.dumps([_addresses(), port, token]))
    until = time.monotonic() + CONNECT_SECONDS
    while len(links) < count and (left := until - time.monotonic()) > 0:
      server.settimeout(left)
      with contextlib.suppress(OSError, ValueError):
        link, _ = server.accept()
        link.settimeout(CONNECT_SECONDS)
        greeting = _receive(link, len(token) + PROCESS_DIGITS)
        if secrets.compare_digest(greeting[: len(token)], token):
          link.sendall(WELCOME)
          links[int(greeting[len(token) :])] = link
  return links


def _connect() -> dict[int, socket.socket]:
  """Connects to process 0; returns {} if it cannot be reached."""
  hosts, port, token = json.loads(devices.gather('')[0])
  for host in hosts:
    with contextlib.suppress(OSError):
      link = socket.create_connection((host, port), CONNECT_SECONDS / 5)
      number = f'{jax.process_index():0{PROCESS_DIGITS}}'
      link.sendall(f'{token}{number}'.encode())
      if _receive(link, len(WELCOME)) == WELCOME.decode():
        return {0: link}
  return {}


def _receive(link: socket.socket, size: int) -> str:
  """Reads exactly `size` bytes; the rest is left for the reader thread."""
  return link.recv(size, socket.MSG_WAITALL).decode()


def _addresses() -> list[str]:
  """Lists the addresses at which other processes may reach this one."""
  with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
    found = [socket.gethostname()]
    with contextlib.suppress(OSError):
      probe.connect(('192.0.2.1', 9))  # sends nothing; chooses an interface
      found.append(probe.getsockname()[0])
  return [*found, 'localhost']


def _delay_stderr() -> None:
  """Delays the stderr of C++ code by a second, but not that of Python."""
  delay = subprocess.Popen(
    [sys.executable, '-c', _DELAY],
    stdin=subprocess.PIPE,
    start_new_session=True,  # so that Ctrl-C does not end it
  )
  sys.stderr = os.fdopen(os.dup(2), 'w', buffering=1)
  os.dup2(delay.stdin.fileno(), 2)
  _delayed.append(delay)
