"""Compares the loader on a streamed set with the same set on the local disk.

  python tests/stream_speed.py [--images=24000] [--pairs=3] [--workers=0,2]

Prepares noise of 64x64 in shards of 16 MB, and serves it as a bucket on the
loopback, with 20 ms latency per request and 1 Gbit/s for all answers together.
Each measurement is a process of its own, which loads batches of 64 for two
and a half epochs; they alternate. Prints images/s after the first half epoch,
the seconds to the first batch, and the peak memory of the process and of its
largest worker.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import fake_bucket
import numpy as np
from ml_collections import ConfigDict
from official_files import cifar10_batches, write_cifar10
from schedules import one_segment_schedule

BATCH, RESOLUTION = 64, 64
WINDOW_IMAGES, CACHE_GB = 5500, 0.14


def config_of(folder, **options):
  block = {
    'source': 'cifar10',
    'resolution': RESOLUTION,
    'channels': 3,
    'crop': None,
    'split': 'train',
    'dir': str(folder),
    'files': None,
    'max_device_bytes': 0,
    **options,
  }
  return ConfigDict({'data': block})


def prepare(folder, images):
  """Prepares `images` noise images in a split, below `folder`."""
  from gan_jax import data

  user_files = folder / 'given'
  user_files.mkdir()
  rng = np.random.default_rng(0)
  batches = {
    name: rng.bytes(len(content))
    for name, content in cifar10_batches(images // 5).items()
  }
  for name, content in batches.items():
    records = np.frombuffer(content, np.uint8).reshape(-1, 3073).copy()
    records[:, 0] %= 10
    batches[name] = records.tobytes()
  write_cifar10(user_files, batches)
  data.prepare(config_of(folder / 'sets', files=str(user_files)))


def children():
  """Lists the processes that this one has started."""
  tasks = Path(f'/proc/{os.getpid()}/task').glob('*/children')
  return [pid for task in tasks for pid in task.read_text().split()]


def peak_megabytes(pid):
  """Returns the peak memory of a process."""
  lines = Path(f'/proc/{pid}/status').read_text().splitlines()
  (line,) = [line for line in lines if line.startswith('VmHWM')]
  return int(line.split()[1]) * 1024 / 1e6


def measure(block, workers):
  """Measures this process: prints JSON."""
  from gan_jax import data
  from gan_jax.data.loader import load
  from gan_jax.data.order import stream_of
  from gan_jax.training.feed import index_batch

  source = data.make(ConfigDict({'data': block}))
  skipped = source.size // 2 // BATCH
  count = 5 * skipped
  schedule = one_segment_schedule(2**36, 1, batch_size=BATCH, disc_steps=1)
  make = partial(
    index_batch, stream_of(source, 0), source, schedule, lambda n: slice(n)
  )
  start = time.perf_counter()
  batches = load(make, range(count), workers)
  next(batches)
  waited = time.perf_counter() - start
  for _ in range(skipped):  # until all workers have started
    next(batches)
  start = time.perf_counter()
  for _ in range(count - 2 - skipped):
    next(batches)
  end = time.perf_counter()
  result = {
    'speed': (count - 2 - skipped) * BATCH / (end - start),
    'first': waited,
    'memory': peak_megabytes(os.getpid()),
    'worker_memory': max(map(peak_megabytes, children())) if workers else 0,
  }
  batches.close()
  print(json.dumps(result))


def run(config, workers, environment, cache):
  flags = ['--measure', json.dumps(config.data.to_dict()), str(workers)]
  environment = {**environment, 'XDG_CACHE_HOME': str(cache)}
  done = subprocess.run(
    [sys.executable, '-W', 'ignore', __file__, *flags],
    env=environment,
    check=True,
    stdout=subprocess.PIPE,
    text=True,
  )
  return json.loads(done.stdout.splitlines()[-1])


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--images', type=int, default=24_000)
  parser.add_argument('--pairs', type=int, default=3)
  parser.add_argument('--workers', default='0,2')
  parser.add_argument('--measure', nargs=2, default=None)
  args = parser.parse_args()
  if args.measure:
    measure(json.loads(args.measure[0]), int(args.measure[1]))
    return
  with tempfile.TemporaryDirectory() as folder:
    folder = Path(folder)
    prepare(folder, args.images)
    local = config_of(folder / 'sets')
    streamed = config_of(
      'gs://bucket', shuffle_window=WINDOW_IMAGES, cache_gb=CACHE_GB
    )
    with fake_bucket.serve(folder / 'sets', latency=0.02, gbit=1) as address:
      remote = fake_bucket.environment(address)
      for workers in map(int, args.workers.split(',')):
        ratios = []
        for pair in range(args.pairs):
          one = run(local, workers, os.environ, folder / 'local')
          other = run(streamed, workers, remote, folder / f'c{workers}{pair}')
          ratios.append(other['speed'] / one['speed'])
          for name, values in (('local', one), ('streamed', other)):
            print(
              f'{workers} workers, {name:8}: {values["speed"]:7,.0f} images/s, '
              f'first batch after {values["first"]:.1f} s, '
              f'{values["memory"]:,.0f} MB, '
              f'worker {values["worker_memory"]:,.0f} MB',
              flush=True,
            )
        listed = ', '.join(f'{ratio:.2f}' for ratio in ratios)
        print(f'{workers} workers: median {np.median(ratios):.2f} ({listed})')


if __name__ == '__main__':
  main()
