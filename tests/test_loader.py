"""Tests of streaming: any number of workers loads the same examples."""

import os
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import launch, running
from PIL import Image
from runs import get_config, metrics, state_arrays
from schedules import one_segment_schedule

from gan_jax import data
from gan_jax.data.loader import fetch_all, load
from gan_jax.data.order import Stream
from gan_jax.data.source import in_memory
from gan_jax.errors import UserError
from gan_jax.training import checkpoint, loop
from gan_jax.training.feed import index_batch


def squares(step):
  return {'square': np.full((3, 2), step**2)}


@pytest.mark.parametrize(
  'workers', [0, pytest.param(3, marks=pytest.mark.slow)]
)
def test_load_keeps_the_order_with_any_number_of_workers(workers):
  loaded = list(load(squares, range(10, 31, 5), workers))
  assert [part['square'][0, 0] for part in loaded] == [100, 225, 400, 625, 900]
  assert all(type(part['square']) is np.ndarray for part in loaded)


@pytest.fixture
def pictures(tmp_path):
  """Writes a folder of 40 images, two of which cannot be decoded."""
  for i in range(40):
    path = tmp_path / 'pictures' / 'ab'[i % 2] / f'{i:02}.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('L', (12 + i % 3, 12), 6 * i).save(path)
  for name in ('a/04.png', 'b/31.png'):
    (tmp_path / 'pictures' / name).write_bytes(b'')
  return tmp_path / 'pictures'


def folder_config(pictures, max_device_bytes=2**30):
  """Returns the `:tiny` config on a folder."""
  config = get_config('vanilla_mnist', 'tiny')
  config.data.source = f'folder:{pictures}'
  config.data.resolution = 12
  config.data.flip = True
  config.data.workers = 2
  config.data.max_device_bytes = max_device_bytes
  return config


@pytest.mark.processes
def test_streamed_batches_equal_resident_ones(pictures):
  """For any number of workers and processes."""
  config = folder_config(pictures)
  kept = fetch_all(data.make(config))
  config.data.max_device_bytes = 0
  source = data.make(config)
  assert source.size == 38
  stream = Stream(seed=0, size=38)
  schedule = one_segment_schedule(192, 2, batch_size=8, gen_batch_size=16)
  steps = range(0, schedule.total_steps, 2)

  def streamed(rows, workers):
    make = partial(index_batch, stream, source, schedule, rows)
    return list(load(make, steps, workers))

  def resident(step):
    batch = index_batch(stream, None, schedule, lambda n: slice(n), step)
    gather = lambda part: {
      'example': part['example'],
      **{name: array[part['index']] for name, array in kept.items()},
    }
    return type(batch)(*map(gather, batch))

  def check(ones, others):
    for one, other in zip(ones, others, strict=True):
      assert jax.tree.structure(one) == jax.tree.structure(other)
      for x, y in zip(
        jax.tree.leaves(one), jax.tree.leaves(other), strict=True
      ):
        np.testing.assert_array_equal(x, y)

  expected = [resident(step) for step in steps]
  assert len(expected) == 6
  check(expected, streamed(lambda n: slice(n), 0))
  check(expected, streamed(lambda n: slice(n), 3))
  # Two processes: halves of each batch, side by side.
  halves = (
    streamed(lambda n, i=i: slice(i * n // 2, (i + 1) * n // 2), 2)
    for i in range(2)
  )
  join = lambda axis, pair: jax.tree.map(
    lambda x, y: np.concatenate([x, y], axis), *pair
  )
  joined = [
    type(one)(
      gen=join(1, (one.gen, other.gen)), disc=join(2, (one.disc, other.disc))
    )
    for one, other in zip(*halves, strict=True)
  ]
  check(expected, joined)


@pytest.mark.processes
def test_resumed_run_may_switch_to_streaming_and_back(pictures, tmp_path):
  """The result equals that of a run with resident data."""
  straight = folder_config(pictures)
  loop.train(straight, tmp_path / 'straight')
  (*_, end) = steps = checkpoint.steps(tmp_path / 'straight')
  total = straight.total_images
  for step, max_device_bytes in zip(steps, (0, 2**30, 0), strict=True):
    config = folder_config(pictures, max_device_bytes)
    config.total_images = total * step // end
    loop.train(config, tmp_path / 'switched')
  assert checkpoint.steps(tmp_path / 'switched')[-1] == end
  assert state_arrays(tmp_path / 'straight', end) == state_arrays(
    tmp_path / 'switched', end
  )
  assert metrics(tmp_path / 'straight') == metrics(tmp_path / 'switched')


def test_deleted_file_raises(pictures, tmp_path):
  config = folder_config(pictures, max_device_bytes=0)
  source = data.make(config)
  (pictures / 'a/00.png').unlink()
  fetch = lambda index: source.fetch(np.array([index]))
  with pytest.raises(UserError, match=r'00\.png was deleted'):
    list(load(fetch, range(3), 1))  # the error passes from worker to user


def test_fetch_all_returns_all_chunks_in_order(monkeypatch):
  pixels = np.arange(5000, dtype=np.int32)
  source = in_memory({'images': pixels[:, None], 'labels': pixels})
  whole = fetch_all(source)
  np.testing.assert_array_equal(whole['labels'], pixels)
  np.testing.assert_array_equal(whole['images'], pixels[:, None])


def children(pid):
  """Lists the processes that a process has started."""
  tasks = Path(f'/proc/{pid}/task').glob('*/children')
  return [int(child) for task in tasks for child in task.read_text().split()]


@pytest.mark.parametrize(
  'signal_number',
  [
    signal.SIGINT,
    pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
    signal.SIGKILL,
  ],
)
@pytest.mark.processes
def test_workers_exit_with_the_run(pictures, tmp_path, signal_number):
  """Workers exit after a signal to the process group, or SIGKILL of the run.

  A terminal sends Ctrl-C, and a scheduler SIGTERM, to the whole group.
  """
  with running(
    launch(
      '--config=experiments/vanilla_mnist.py:tiny',
      f'--workdir={tmp_path}/run',
      f'--config.data.source=folder:{pictures}',
      '--config.data.resolution=12',
      '--config.data.max_device_bytes=0',
      '--config.data.workers=2',
      '--config.total_images=10_000_000',
    ),
    stderr=subprocess.STDOUT,
    start_new_session=True,
  ) as process:
    workers = children(process.pid)
    assert len(workers) >= 2
    if signal_number == signal.SIGKILL:
      process.kill()
    else:
      os.killpg(process.pid, signal_number)
    output = process.stdout.read()
  codes = {signal.SIGINT: 130, signal.SIGTERM: 75, signal.SIGKILL: -9}
  assert process.returncode == codes[signal_number]
  if signal_number != signal.SIGKILL:
    assert 'repeat the command to resume' in output
    assert 'Warning' not in output, output
    assert 'Traceback' not in output, output
  deadline = time.monotonic() + 30
  while any(Path(f'/proc/{pid}').exists() for pid in workers):
    assert time.monotonic() < deadline, 'workers have outlived the run'
    time.sleep(0.1)
