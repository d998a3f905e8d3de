"""A bucket on the loopback: the part of Google's storage API that reads.

  python tests/fake_bucket.py FOLDER [--latency=0.02] [--gbit=1] [--fail=0]

Serves the files below FOLDER as the objects of any bucket. Each request waits
for `latency` seconds; all answers together are sent at `gbit` Gbit/s. Of the
reads of contents, every `fail`-th is cut off in the middle, or refused. Prints
its address; the environment that `environment` returns makes gcsfs use it.
"""

import argparse
import contextlib
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

CHUNK = 2**18


class Line:
  """A line of limited bandwidth, which all answers share."""

  def __init__(self, bytes_per_second: float):
    self._speed, self._free = bytes_per_second, 0.0
    self._mutex = threading.Lock()

  def wait(self, size: int) -> None:
    with self._mutex:
      now = time.monotonic()
      # A little may be caught up: this machine's clock ticks late.
      self._free = max(now - 0.1, self._free) + size / self._speed
      until = self._free
    time.sleep(max(0.0, until - now))


class Handler(BaseHTTPRequestHandler):
  protocol_version = 'HTTP/1.1'
  folder: Path
  latency: float
  line: Line | None
  fail: int
  reads = itertools.count(1)

  def log_message(self, *args):
    pass

  def do_GET(self):
    time.sleep(self.latency)
    url = urlsplit(self.path)
    _, _, name = url.path.partition('/o/')
    file = self.folder / unquote(name)
    if url.path.endswith('/o'):
      self._json(self._list(parse_qs(url.query)))
    elif not name or not file.is_file():
      self._json({'error': {'code': 404, 'message': 'Not Found'}}, 404)
    elif 'alt=media' in url.query or url.path.startswith('/download'):
      self._contents(file)
    else:
      self._json(self._object(file))

  def _object(self, file):
    return {
      'name': str(file.relative_to(self.folder)),
      'bucket': 'bucket',
      'size': str(file.stat().st_size),
      'updated': '2026-01-01T00:00:00.000Z',
      'timeCreated': '2026-01-01T00:00:00.000Z',
      'generation': '1',
    }

  def _list(self, query):
    prefix = query.get('prefix', [''])[0]
    delimiter = query.get('delimiter', [''])[0]
    items, prefixes = [], set()
    for file in sorted(self.folder.rglob('*')):
      name = str(file.relative_to(self.folder))
      if not file.is_file() or not name.startswith(prefix):
        continue
      rest = name[len(prefix) :]
      if delimiter and delimiter in rest:
        prefixes.add(prefix + rest.partition(delimiter)[0] + delimiter)
      else:
        items.append(self._object(file))
    return {'items': items, 'prefixes': sorted(prefixes)}

  def _json(self, content, status=200):
    body = json.dumps(content).encode()
    self.send_response(status)
    self.send_header('Content-Type', 'application/json')
    self.send_header('Content-Length', str(len(body)))
    self.end_headers()
    self.wfile.write(body)

  def _contents(self, file):
    number = next(self.reads)
    failing = self.fail and number % self.fail == 0
    if failing and number // self.fail % 2:
      self._json({'error': {'code': 503, 'message': 'Unavailable'}}, 503)
      return
    size = file.stat().st_size
    first, last = 0, size - 1
    if byte_range := self.headers.get('Range'):
      start, _, end = byte_range.removeprefix('bytes=').partition('-')
      first, last = int(start), min(int(end or last), last)
    self.send_response(206 if byte_range else 200)
    self.send_header('Content-Length', str(last + 1 - first))
    self.send_header('Content-Range', f'bytes {first}-{last}/{size}')
    self.end_headers()
    with file.open('rb') as opened:
      opened.seek(first)
      remaining = last + 1 - first
      while remaining:
        chunk = opened.read(min(CHUNK, remaining))
        if failing:
          self.wfile.write(chunk[: len(chunk) // 2])
          self.close_connection = True
          return
        if self.line is not None:
          self.line.wait(len(chunk))
        self.wfile.write(chunk)
        remaining -= len(chunk)


def environment(address: str) -> dict[str, str]:
  """Returns the environment of a process whose gs:// is this bucket."""
  return {
    **os.environ,
    'STORAGE_EMULATOR_HOST': address,
    'FSSPEC_GCS_TOKEN': 'anon',
    'GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT': 'false',  # it needs gRPC
  }


@contextlib.contextmanager
def serve(folder: Path, **options: float) -> Iterator[str]:
  """Serves a folder in another process; yields the address."""
  flags = [f'--{name}={value}' for name, value in options.items()]
  command = [sys.executable, __file__, str(folder), *flags]
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
    try:
      yield process.stdout.readline().strip()
    finally:
      process.kill()


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('folder', type=Path)
  parser.add_argument('--latency', type=float, default=0.0)
  parser.add_argument('--gbit', type=float, default=None)
  parser.add_argument('--fail', type=int, default=0)
  args = parser.parse_args()
  Handler.folder, Handler.latency = args.folder, args.latency
  Handler.line = args.gbit and Line(args.gbit * 1e9 / 8)
  Handler.fail = args.fail
  server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
  server.daemon_threads = True
  server.handle_error = lambda *args: None  # clients may hang up
  print(f'http://127.0.0.1:{server.server_port}', flush=True)
  server.serve_forever()


if __name__ == '__main__':
  main()
