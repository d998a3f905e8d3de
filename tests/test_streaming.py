"""Tests of sets that are streamed shard by shard, through a bounded cache."""

import contextlib
import itertools
import multiprocessing
import os
import signal
import subprocess
import threading
import time
import warnings
from functools import partial
from pathlib import Path

import fake_bucket
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import shuffle_quality
from conftest import ROOT, launch
from etils import epath
from fsspec.implementations.local import LocalFileSystem
from ml_collections import ConfigDict
from official_files import cifar10_batches, write_cifar10, write_mnist
from runs import get_config, metrics, state_arrays
from schedules import one_segment_schedule

from gan_jax import data
from gan_jax.data import cache as caches
from gan_jax.data import on_device, pyramid
from gan_jax.data.cache import Cache, open_cache
from gan_jax.data.order import Stream, stream_of
from gan_jax.data.records import Records
from gan_jax.data.source import Blocks, in_memory, joined
from gan_jax.errors import UserError
from gan_jax.files import held
from gan_jax.metrics.extractor import Extractor
from gan_jax.training import checkpoint, loop
from gan_jax.training.feed import index_batch, repeat_first

ODD = Blocks(sizes=(7, 1, 12, 5, 5, 9, 3, 8, 2, 6, 4), window=3)
SIZE = sum(ODD.sizes)


def block_of(indices):
  return np.searchsorted(np.cumsum(ODD.sizes), indices, side='right')


# The order


def test_epoch_is_a_permutation_of_windows_of_blocks():
  stream = Stream(3, SIZE, blocks=ODD)
  epochs = stream.indices(np.arange(3 * SIZE)).reshape(3, SIZE)
  for epoch in epochs:
    assert sorted(epoch) == list(range(SIZE))
    # The blocks come in windows of three; each window is read completely.
    finished, window = [], []
    for number in block_of(epoch):
      if number not in window:
        if len(window) == 3:
          finished += window
          window = []
        window.append(number)
      assert number not in finished
    first = block_of(epoch)[:6]
    assert (np.diff(first) != 0).any()  # their examples are mixed
  assert not np.array_equal(epochs[0], epochs[1])


def test_order_is_a_pure_function_of_the_position():
  straight = Stream(3, SIZE, blocks=ODD).indices(np.arange(4 * SIZE))
  stream = Stream(3, SIZE, blocks=ODD)
  rng = np.random.default_rng(0)
  positions = rng.permutation(4 * SIZE)  # jumps between epochs and windows
  np.testing.assert_array_equal(stream.indices(positions), straight[positions])
  (parts,) = [
    [stream.indices(np.arange(p, 4 * SIZE, n)) for p in range(n)] for n in (5,)
  ]
  for part, process in zip(parts, range(5), strict=True):
    np.testing.assert_array_equal(part, straight[process::5])
  others = [
    Stream(4, SIZE, blocks=ODD),
    Stream(3, SIZE, attempt=1, blocks=ODD),
    Stream(3, SIZE, name='b', blocks=ODD),
    Stream(3, SIZE, blocks=ODD._replace(window=4)),
    Stream(3, SIZE),
  ]
  orders = [other.indices(np.arange(SIZE)).tolist() for other in others]
  assert len({tuple(order) for order in orders}) == len(others)
  assert straight[:SIZE].tolist() not in orders


def test_all_orders_of_a_window_are_equally_probable():
  """Chi-squared over 24 orders: the 99.99% quantile of 23 degrees is 58.6."""
  blocks = Blocks(sizes=(2, 2), window=2)
  counts = dict.fromkeys(itertools.permutations(range(4)), 0)
  for seed in range(2400):
    counts[tuple(Stream(seed, 4, blocks=blocks).indices(np.arange(4)))] += 1
  assert sum((n - 100) ** 2 / 100 for n in counts.values()) < 58.6


def test_upcoming_blocks_are_those_that_are_read():
  stream = Stream(0, SIZE, blocks=ODD)
  numbers = []
  for position in range(3 * SIZE):
    upcoming = stream.upcoming(position)
    block = block_of(stream.indices(np.array([position])))[0]
    assert block in upcoming.blocks
    assert len(upcoming.blocks) <= 2 * ODD.window
    numbers.append(upcoming.number)
    if position and numbers[-2] % 2:  # `upcoming` listed all of the next window
      earlier = stream.upcoming(position - 1).blocks
      assert block in earlier
  assert numbers == sorted(numbers)
  assert len(set(numbers)) >= 3 * 4 * 2 - 4  # windows of one example have one


@pytest.mark.parametrize('window', [2, 8, None])
def test_shuffle_quality_equals_the_calculated_one(window):
  """Positions in a window of n are uniform, as are the shards in an epoch."""
  sizes, batch = (64,) * 32, 32
  size = sum(sizes)
  blocks = window and Blocks(sizes, window)
  order = Stream(1, size, blocks=blocks).indices(np.arange(size))
  n = 64 * (window or 32)  # neighbours are shuffled within n
  # |x - y| of two uniform positions has the quantiles 1 - sqrt(1 - q).
  distances = shuffle_quality.neighbor_distances(order)
  inside = distances[np.arange(1, size) % 64 != 0] * size / n
  for q in (0.25, 0.5, 0.9):
    assert np.quantile(inside, q) == pytest.approx(1 - (1 - q) ** 0.5, abs=0.02)
  share = shuffle_quality.same_block_share(order, sizes, batch)
  assert share == pytest.approx(63 / (n - 1), rel=0.1)
  # One class per block: half the sum of |share - 1/32|.
  labels = np.arange(size) // 64
  variation = shuffle_quality.class_variation(order, labels, batch)
  assert (variation < 0.45) == (window is None)


# The cache

BYTES = 1000


def shard(number):
  return f'set.array_record-{number:05}'


@pytest.fixture
def remote(tmp_path):
  """A folder of 12 shards, each of which holds its own number."""
  folder = tmp_path / 'remote'
  folder.mkdir()
  for number in range(12):
    (folder / shard(number)).write_bytes(bytes([number]) * BYTES)
  return folder


def cache_of(remote, shards=4.5, folder='cache'):
  sizes = {file.name: BYTES for file in remote.iterdir()}
  local = remote.parent / folder
  return open_cache(epath.Path(remote), local, sizes, int(shards * BYTES), '1')


def stored(folder):
  """Returns the bytes of all shards in a cache while no process frees space."""
  with held(folder, lambda: None):
    total = 0
    for file in folder.glob('*.array_record*'):
      with contextlib.suppress(FileNotFoundError):  # renamed when complete
        total += file.stat().st_size
  return total


def contents(cache, number):
  with cache.open(shard(number)) as file:
    return file.read()


def test_least_recently_used_shard_is_removed(remote):
  cache = cache_of(remote)
  for number in (0, 1, 2, 3, 0, 4):
    assert contents(cache, number) == bytes([number]) * BYTES
    time.sleep(0.01)
  kept = sorted(file.name for file in cache.folder.glob('set*'))
  assert kept == [shard(number) for number in (0, 2, 3, 4)]
  cache.ahead(0, [shard(0), shard(2)])  # upcoming shards stay
  for number in (6, 7, 8):
    contents(cache, number)
  assert (cache.folder / shard(0)).exists()
  assert (cache.folder / shard(2)).exists()


def test_announcements_of_threads_that_lag_are_ignored(remote, monkeypatch):
  """Also those of a stage that has ended: its files have other names."""
  cache = cache_of(remote)
  monkeypatch.setattr(Cache, '_work', lambda self: None)
  small, large, after = {'a.2', 'b.2'}, {'a', 'b'}, {'c'}
  for number, names, planned in (
    (5, small, small), (5, large, large), (5, small, large), (4, small, large),
    (6, after, after), (5, large, after), (6, after, after), (1, small, small),
  ):  # fmt: skip
    cache.ahead(number, sorted(names))
    assert cache._planned == planned


FORK = multiprocessing.get_context('fork')


def forked(function, *args):
  """Forks a process, which must not use JAX, to save the imports."""
  process = FORK.Process(target=function, args=args)
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    process.start()
  return process


def read_at_random(remote, seed, failures):
  """Reads shards in random order from several threads, as a worker does."""
  cache = cache_of(remote)
  rng = np.random.default_rng(seed)

  def read(numbers):
    for number in numbers:
      if contents(cache, number) != bytes([number]) * BYTES:
        failures.put(number)

  orders = [rng.integers(0, 12, 150).tolist() for _ in range(3)]
  threads = [threading.Thread(target=read, args=(order,)) for order in orders]
  for number, thread in enumerate(threads):
    thread.start()
    cache.ahead(10 * number, [shard(i) for i in orders[number][:4]])
  for thread in threads:
    thread.join()


def test_processes_share_a_cache_within_its_limit(remote):
  """Three processes of three threads; one is killed while it reads."""
  failures = FORK.SimpleQueue()
  processes = [
    forked(read_at_random, remote, seed, failures) for seed in range(3)
  ]
  folder, largest, began = remote.parent / 'cache', 0, None
  while any(process.is_alive() for process in processes[1:]):
    if (folder / '.version').exists():
      largest = max(largest, stored(folder))
      began = began or time.monotonic()
    if began and time.monotonic() > began + 0.3:
      processes[0].kill()
  for process in processes:
    process.join()
  assert 2 * BYTES < largest <= 4.5 * BYTES
  assert failures.empty()
  assert [process.exitcode for process in processes[1:]] == [0, 0]
  contents(cache_of(remote), 11)
  assert stored(folder) <= 4.5 * BYTES


def killed_in_a_download(remote):
  def get_file(self, source, target):
    Path(target).write_bytes(b'half')
    os.kill(os.getpid(), signal.SIGKILL)

  LocalFileSystem.get_file = get_file
  contents(cache_of(remote), 5)


def test_killed_download_is_repeated(remote):
  killed = forked(killed_in_a_download, remote)
  killed.join()
  assert killed.exitcode == -signal.SIGKILL
  cache = cache_of(remote)
  assert (cache.folder / f'{shard(5)}.new').read_bytes() == b'half'
  for number in (0, 1, 2, 3):  # its space is free again
    contents(cache, number)
  assert sorted(file.name for file in cache.folder.glob('set*')) == [
    shard(number) for number in range(4)
  ]
  assert contents(cache, 5) == bytes([5]) * BYTES


def failing(monkeypatch, failures, error=None):
  """Makes the first reads of each file fail, or return too few bytes."""
  monkeypatch.setattr(caches, 'FIRST_WAIT_SECONDS', 0.001)
  real_init, counts = Cache.__init__, {}

  def init(self, *args):
    real_init(self, *args)
    real = self._files.get_file

    def get_file(source, target):
      counts[source] = counts.get(source, 0) + 1
      if counts[source] > failures:
        return real(source, target)
      if error:
        raise error
      Path(target).write_bytes(b'short')

    self._files = type('Files', (), {'get_file': staticmethod(get_file)})()

  monkeypatch.setattr(Cache, '__init__', init)


@pytest.mark.parametrize('error', [None, ConnectionResetError('reset')])
def test_failed_reads_are_repeated(remote, monkeypatch, error):
  failing(monkeypatch, 3, error)
  assert contents(cache_of(remote), 2) == bytes([2]) * BYTES


def test_reads_that_always_fail_raise(remote, monkeypatch):
  failing(monkeypatch, 99)
  cache = cache_of(remote)
  with pytest.raises(
    UserError, match=r'cannot read .*-00002 in 4 attempts \(5'
  ):
    contents(cache, 2)
  assert not list(cache.folder.glob('set*'))


def test_another_version_of_the_set_empties_the_cache(remote):
  contents(cache_of(remote), 2)
  cache = open_cache(
    epath.Path(remote), remote.parent / 'cache', {shard(2): BYTES}, 10**6, '2'
  )
  assert not list(cache.folder.glob('set*'))


# The sources


@pytest.fixture(scope='module')
def mnist(tmp_path_factory):
  """A prepared set of 300 + 40 digits, in shards of 20."""
  from gan_jax.data import builder

  folder = tmp_path_factory.mktemp('sets')
  user_files = tmp_path_factory.mktemp('given')
  write_mnist(user_files, 300, 40)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(builder, 'SHARD_BYTES', 20 * 28 * 28)
    data.prepare(mnist_config(folder, files=str(user_files)))
  return folder


def mnist_config(folder, **more):
  block = {
    'source': 'mnist',
    'resolution': 28,
    'channels': 1,
    'crop': None,
    'split': 'all',
    'dir': str(folder),
    'files': None,
    'max_device_bytes': 0,
    **more,
  }
  return ConfigDict({'data': block})


def shard_gb(mnist):
  """Returns the size of the largest shard, in GB."""
  files = mnist.rglob('*.array_record*')
  return max(file.stat().st_size for file in files) / 1e9


def streamed(mnist, windows=2.0, **more):
  """Returns a source of windows of 4 shards, with a cache of such windows."""
  gb = 4 * windows * shard_gb(mnist) + 1e-9
  options = {'shuffle_window': 90, 'cache_gb': gb} | more
  return data.make(mnist_config(mnist, **options))


def test_shards_have_the_requested_size(mnist):
  source = streamed(mnist)
  assert sum(source.blocks.sizes) == 340
  assert 15 <= len(source.blocks.sizes) <= 20
  assert source.blocks.window == 90 // max(source.blocks.sizes) == 4


def test_streamed_set_equals_the_local_set(mnist):
  local, remote = data.make(mnist_config(mnist)), streamed(mnist)
  rows = np.random.default_rng(0).permutation(340)
  for name, array in local.fetch(rows).items():
    np.testing.assert_array_equal(remote.fetch(rows)[name], array)
  np.testing.assert_array_equal(remote.labels(), local.labels())
  assert remote.fingerprint() == local.fingerprint()
  assert remote.size == local.size
  assert local.blocks is local.ahead is None
  sliced = {'split': 'train[10%:55%]+test'}
  local_examples = data.make(mnist_config(mnist, **sliced)).fetch(
    np.arange(175)
  )
  streamed_examples = streamed(mnist, **sliced).fetch(np.arange(175))
  np.testing.assert_array_equal(
    local_examples['images'], streamed_examples['images']
  )


def test_order_does_not_depend_on_the_cache(mnist):
  """It equals that of a local set with the same window; in 1 or 2 processes."""
  local = data.make(mnist_config(mnist, shuffle_window=90))
  schedule = one_segment_schedule(680, 2, batch_size=8)

  def batches(source, rows=lambda n: slice(n)):
    stream = stream_of(source, 0)
    make = partial(index_batch, stream, source, schedule, rows)
    return [make(step).disc for step in range(0, schedule.total_steps, 2)]

  expected = batches(local)
  for source in (streamed(mnist), streamed(mnist, windows=5)):
    for one, other in zip(expected, batches(source), strict=True):
      np.testing.assert_array_equal(one['images'], other['images'])
  halves = [
    batches(streamed(mnist), lambda n, i=i: slice(i * n // 2, (i + 1) * n // 2))
    for i in range(2)
  ]
  for one, *parts in zip(expected, *halves, strict=True):
    both = np.concatenate([part['images'] for part in parts], axis=2)
    np.testing.assert_array_equal(one['images'], both)


def test_each_shard_is_downloaded_once_per_epoch(mnist, monkeypatch):
  """The cache never exceeds its limit."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(mnist.parent / 'counted'))
  downloaded, excess, original = [], [], Cache._download

  def download(self, name, new):
    original(self, name, new)
    downloaded.append(name)
    excess.append(stored(self.folder) - self.limit)

  monkeypatch.setattr(Cache, '_download', download)
  source = streamed(mnist)
  stream, size = stream_of(source, 0), 680
  for first in range(0, size, 4):
    positions = np.arange(first, first + 4)
    source.ahead(stream.upcoming(first), 1)
    source.fetch(stream.indices(positions))
    time.sleep(0.002)
  # Windows of both epochs, and perhaps the next one; fewer if neighbouring
  # windows share shards, where epochs meet.
  assert max(excess) <= 0
  shards = len(source.blocks.sizes)
  assert shards < len(downloaded) <= 2 * shards + 4


def test_precompilation_reads_one_example_and_announces_nothing(mnist):
  """A dispatch far ahead would push what training reads out of the cache."""
  source, fetched = streamed(mnist), []
  schedule = one_segment_schedule(8, 2, batch_size=4)
  make = lambda source: index_batch(
    stream_of(source, 0), source, schedule, lambda n: slice(0, n), 0
  )

  def fetch(indices):
    fetched.append(indices)
    return source.fetch(indices)

  spied = source._replace(fetch=fetch, ahead=None)
  described = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
  batch = make(repeat_first(spied))
  assert described(batch) == described(make(source))
  assert [len(indices) for indices in fetched] == [1]
  assert repeat_first(source).ahead is None


@pytest.mark.parametrize(
  'options, message',
  [
    ({'cache_gb': 1e-5}, r'too small for two .*8 shards: set it to 0.00\d or '),
    ({'shuffle_window': None}, r'needs a window .*shuffle_window, .* to \d\d '),
    (
      {'source': 'digits'},
      'digits is not stored in shards: remove config.data',
    ),
    ({'dir': 'gs://nowhere/x'}, r"pip install -e '\.\[gcs\]'"),
  ],
)
def test_invalid_streaming_settings_raise(mnist, monkeypatch, options, message):
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  with pytest.raises(UserError, match=message):
    streamed(mnist, **options)


def test_two_sources_share_the_cache(mnist):
  config = mnist_config(
    mnist, source=None, a='mnist', b='mnist', shuffle_window=90,
    cache_gb=16.1 * shard_gb(mnist),
  )  # fmt: skip
  source = data.make(config)
  stream = stream_of(source, 0)
  source.ahead(stream.upcoming(0), 1)
  fetched = source.fetch(stream.indices(np.arange(20)))
  assert fetched['a'].shape == fetched['b'].shape == (20, 28, 28, 1)
  assert (fetched['a'] != fetched['b']).any()
  config.data.cache_gb /= 2
  with pytest.raises(UserError, match='cache_gb is too small'):
    data.make(config)
  assert joined({'a': in_memory({'images': np.zeros((2, 1))})}).ahead is None


# Runs


def run_config(mnist, **more):
  config = get_config('vanilla_mnist', 'tiny')
  config.data.update(streamed_block(mnist) | more)
  config.data.workers = 0
  return config


def streamed_block(mnist):
  return {
    'source': 'mnist',
    'resolution': 28,
    'dir': str(mnist),
    'max_device_bytes': 0,
    'shuffle_window': 90,
    'cache_gb': 8.1 * shard_gb(mnist),
  }


def test_streamed_run_resumes_bit_for_bit(mnist, tmp_path):
  """With workers, without a cache, and with a larger cache."""
  straight = run_config(mnist)
  loop.train(straight, tmp_path / 'straight')
  (*_, end) = steps = checkpoint.steps(tmp_path / 'straight')
  total = straight.total_images
  assert total > 340  # more than an epoch
  others = {'cache_gb': None}, {'workers': 2}, {'cache_gb': 1.0}
  for step, other in zip(steps, others, strict=True):
    config = run_config(mnist, **other)
    config.total_images = total * step // end
    loop.train(config, tmp_path / 'resumed')
  assert state_arrays(tmp_path / 'straight', end) == state_arrays(
    tmp_path / 'resumed', end
  )
  assert metrics(tmp_path / 'straight') == metrics(tmp_path / 'resumed')
  changed = run_config(mnist, shuffle_window=60)
  with pytest.raises(UserError, match=r'another run.*shuffle_window \(90'):
    loop.train(changed, tmp_path / 'resumed')


def test_run_on_other_shards_is_refused(mnist, tmp_path, monkeypatch):
  """The set was prepared again, with other shards."""
  config = run_config(mnist)
  config.total_images = 64
  loop.train(config, tmp_path / 'run')
  original = Records.blocks

  def other_blocks(self, spec):
    blocks = original(self, spec)
    one, other, *more = blocks.sizes
    return blocks._replace(sizes=(one + 1, other - 1, *more))

  monkeypatch.setattr(Records, 'blocks', other_blocks)
  with pytest.raises(UserError, match=r'another run.*data\.shards'):
    loop.train(config, tmp_path / 'run')


def test_reference_statistics_use_the_same_images(mnist):
  """The stored images come first; both parts are read shard by shard."""
  extractor = Extractor({'images'}, None, 64, np.zeros((1, 28, 28, 1)))
  local, remote = (
    extractor.order(source, 200)[:200]
    for source in (data.make(mnist_config(mnist)), streamed(mnist))
  )
  assert (np.diff(remote[:64]) > 0).all() and (np.diff(remote[64:]) > 0).all()
  assert sorted(local[:64]) == remote[:64].tolist()
  assert sorted(local[64:]) == remote[64:].tolist()


# The pyramid


@pytest.fixture(scope='module')
def pyramid_set(tmp_path_factory):
  """A prepared set of 120 noise images of 16x16, in 6 shards, with levels."""
  from gan_jax.data import builder

  folder = tmp_path_factory.mktemp('pyramids')
  user_files = tmp_path_factory.mktemp('noise')
  rng = np.random.default_rng(0)
  batches = {}
  for name, content in cifar10_batches(20).items():
    records = np.frombuffer(content, np.uint8).reshape(-1, 3073).copy()
    records[:, 1:] = rng.integers(0, 256, (len(records), 3072))
    batches[name] = records.tobytes()
  write_cifar10(user_files, batches)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(builder, 'SHARD_BYTES', 20 * 16 * 16 * 3)
    data.prepare(pyramid_config(folder, files=str(user_files), pyramid=False))
    data.prepare(pyramid_config(folder))  # levels are added to a prepared set
  return folder


def pyramid_config(folder, **more):
  options = {'source': 'cifar10', 'resolution': 16, 'channels': 3}
  return mnist_config(folder, **options, **{'pyramid': True} | more)


def test_pyramid_levels_are_exact_sums(pyramid_set):
  source = data.make(pyramid_config(pyramid_set))
  rows = np.random.default_rng(1).permutation(120)
  whole = source.fetch(rows)
  for factor, size in ((2, 8), (4, 4)):
    sums = source.fetch_sums(rows, factor)
    squares = whole['images'].reshape(120, size, factor, size, factor, 3)
    np.testing.assert_array_equal(
      sums['images'], squares.astype(np.int64).sum((2, 4))
    )
    assert sums['images'].dtype == np.uint16
    np.testing.assert_array_equal(sums['labels'], whole['labels'])
  assert pyramid.factors(1024) == (2, 4, 8, 16, 32, 64, 128, 256)
  white = np.full((1, 32, 32, 1), 255, np.uint8)
  for _ in range(4):
    white = pyramid.sum_squares(white)
  assert white.max() == 255 * 256 <= np.iinfo(np.uint16).max


def test_pyramid_levels_have_few_bytes(pyramid_set):
  """A level has the bytes of its sums and labels, and six short headers."""
  total = lambda pattern: sum(
    file.stat().st_size for file in pyramid_set.rglob(pattern)
  )
  headers = 192 * 6  # of .npy
  assert total('*.sums4.npy') == headers + 120 * (4 * 4 * 3 * 2 + 4)
  assert total('*.sums2.npy') == headers + 120 * (8 * 8 * 3 * 2 + 4)


@pytest.mark.parametrize('flip', [False, True])
def test_pyramid_gives_the_same_images(pyramid_set, flip):
  """The averages are equal, but scaling to [-1, 1] may round differently.

  The compiler uses one instruction or two to multiply and subtract 1.
  """
  source = data.make(pyramid_config(pyramid_set))
  rows = np.arange(120)
  read = jax.jit(
    partial(on_device.read, flip=flip, parts=()), static_argnames='downsample'
  )
  key, step = jax.random.key(3), jnp.int32(5)
  for factor in (2, 4):
    whole, sums = (
      read({}, {'example': rows, **fetched}, key, step, downsample=factor)
      for fetched in (source.fetch(rows), source.fetch_sums(rows, factor))
    )
    assert whole['images'].shape == (120, 16 // factor, 16 // factor, 3)
    np.testing.assert_allclose(
      whole['images'], sums['images'], rtol=0, atol=2**-23
    )
    np.testing.assert_array_equal(whole['labels'], sums['labels'])


@pytest.mark.slow  # compiles six programs
def test_progressive_run_with_a_pyramid_resumes_bit_for_bit(
  pyramid_set, tmp_path, monkeypatch
):
  """From local levels, and from streamed levels, resumed within a stage."""
  read = []

  def fetch(records, indices, factor, original=pyramid.fetch):
    read.append(factor)
    return original(records, indices, factor)

  monkeypatch.setattr(pyramid, 'fetch', fetch)
  config = get_config('progressive_cifar10', 'tiny')
  config.data.update(
    {
      'source': 'cifar10', 'split': 'all', 'dir': str(pyramid_set),
      'max_device_bytes': 0, 'shuffle_window': 40, 'workers': 0,
      'resolution': 16, 'pyramid': True,
    }
  )  # fmt: skip
  loop.train(config, tmp_path / 'local')
  (*_, end) = checkpoint.steps(tmp_path / 'local')
  assert {2, 4} <= set(read)
  config.data.cache_gb = 4.1 * shard_gb(pyramid_set)
  total, config.total_images = config.total_images, 100
  loop.train(config, tmp_path / 'streamed')
  config.total_images = total
  loop.train(config, tmp_path / 'streamed')
  assert state_arrays(tmp_path / 'local', end) == state_arrays(
    tmp_path / 'streamed', end
  )


def test_set_without_a_pyramid_raises(pyramid_set, mnist):
  with pytest.raises(UserError, match='has no pyramid: run the same command'):
    streamed(mnist, pyramid=True)
  with pytest.raises(UserError, match=r'digits has no pyramid: set config\.'):
    data.make(mnist_config(mnist, source='digits', pyramid=True))


@pytest.mark.slow
def test_run_on_a_failing_bucket_equals_the_local_run(mnist, tmp_path):
  """A run on gs://, where every fifth read fails."""
  pytest.importorskip('gcsfs')
  flags = [
    f'--config.data.{name}={value}'
    for name, value in streamed_block(mnist).items()
    if name != 'dir'
  ]
  run = lambda workdir, folder, env: subprocess.run(
    launch(
      '--config=experiments/vanilla_mnist.py:tiny',
      f'--workdir={tmp_path / workdir}',
      f'--config.data.dir={folder}',
      *flags,
    ),
    cwd=ROOT,
    env=env,
    check=True,
    capture_output=True,
    text=True,
  )
  with fake_bucket.serve(mnist, latency=0.02, fail=5) as address:
    run('bucket', 'gs://bucket', fake_bucket.environment(address))
  run('local', mnist, os.environ)
  (*_, end) = checkpoint.steps(tmp_path / 'local')
  assert state_arrays(tmp_path / 'local', end) == state_arrays(
    tmp_path / 'bucket', end
  )
