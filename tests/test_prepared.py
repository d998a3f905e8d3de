"""Tests of the official data sets, with valid and damaged files."""

import fcntl
import hashlib
import importlib.util
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from conftest import ROOT, launch
from ml_collections import ConfigDict
from official_files import (
  attributes,
  cifar10_batches,
  write_celeb_a,
  write_celeba,
  write_cifar10,
  write_idx,
  write_mnist,
)

from gan_jax import data
from gan_jax import files as files_of
from gan_jax.data import prepared, store
from gan_jax.data.celeba import CLASSES, official_split
from gan_jax.data.mnist import MNIST
from gan_jax.errors import UserError


@pytest.fixture
def user_files(tmp_path):
  """The folder of the user's files."""
  folder = tmp_path / 'given'
  folder.mkdir()
  return folder


@pytest.fixture
def make(tmp_path, user_files):
  """(source, ...) -> the source, prepared from the user's files."""

  def make(source, resolution=32, channels=3, act=data.make, **more):
    block = {
      'source': source,
      'resolution': resolution,
      'channels': channels,
      'crop': None,
      'split': 'all',
      'dir': str(tmp_path / 'prepared'),
      'files': str(user_files),
      'max_device_bytes': 2**30,
      **more,
    }
    return act(ConfigDict({'data': block}))

  return make


def fetch_all(source):
  return source.fetch(np.arange(source.size))


# The official sets


def test_mnist_is_prepared(make, user_files, capsys):
  write_mnist(user_files)
  source = make('mnist', 28, 1, split='train')
  assert (
    'Warning: found only 40 of the 70,000 images of mnist'
    in capsys.readouterr().err
  )
  assert (source.size, source.classes) == (30, tuple('0123456789'))
  assert source.example_bytes == 28 * 28 + 4
  examples = fetch_all(source)
  assert examples['images'].shape == (30, 28, 28, 1)
  assert (examples['images'][:, 5, 7, 0] == np.arange(30)).all()
  assert (examples['labels'] == np.arange(30) % 10).all()
  assert examples['labels'].dtype == np.int32
  # Any order, any number of times.
  fetched = source.fetch(np.array([7, 3, 7]))
  assert fetched['images'][:, 0, 0, 0].tolist() == [7, 3, 7]
  assert make('mnist', 28, 1, split='test').size == 10
  assert make('mnist', 28, 1, split='all').size == 40
  assert make('mnist', 28, 1, split='train[:20%]').size == 6


@pytest.mark.slow  # 70,000 images; the format is tested above
def test_genuine_mnist_has_the_published_statistics(make, shared):
  source = make('mnist', 28, 1, split='train', files=str(shared / 'mnist'))
  examples = fetch_all(source)
  # The published first labels, class counts and mean pixel of MNIST.
  assert examples['labels'][:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
  assert np.bincount(examples['labels'])[:3].tolist() == [5923, 6742, 5958]
  assert examples['images'].mean() / 255 == pytest.approx(0.1307, abs=5e-5)


def test_fashion_mnist_is_not_mnist(make, shared):
  """The files of both sets have the same names, so only the content differs."""
  with pytest.raises(
    UserError, match=r'is not the official file of fashion_mnist.*SHA-'
  ):
    make('fashion_mnist', 28, 1, files=str(shared / 'mnist'))


def test_cifar10_is_prepared(make, user_files, capsys):
  write_cifar10(user_files, cifar10_batches())
  source = make('cifar10', split='train')
  assert '120 of the 60,000 images' in capsys.readouterr().err
  examples = fetch_all(source)
  assert examples['images'].shape == (100, 32, 32, 3)
  reds = np.arange(100)[:, None, None] % 20
  assert (examples['images'][..., 0] == reds).all()
  assert (examples['images'][..., 1] == 100).all()
  assert (examples['images'][..., 2] == np.arange(32)).all()
  assert source.classes[3] == 'cat'
  assert (examples['labels'] == np.arange(100) % 10).all()


def test_unpacked_cifar10_is_prepared(make, user_files):
  folder = user_files / 'cifar-10-batches-bin'
  folder.mkdir()
  for name, content in cifar10_batches().items():
    (folder / name).write_bytes(content)
  assert make('cifar10', files=str(folder)).size == 120
  assert make('cifar10', 16, files=str(user_files)).size == 120


@pytest.mark.slow  # 60,000 images
def test_complete_cifar10_must_be_balanced(make, user_files):
  batches = cifar10_batches(10_000)
  write_cifar10(user_files, batches)
  assert make('cifar10', 8, 1, split='test').size == 10_000
  spoiled = b'\1' + batches['test_batch.bin'][1:]
  write_cifar10(user_files, {**batches, 'test_batch.bin': spoiled})
  with pytest.raises(
    UserError, match=r'is not CIFAR-10: .* test are \[999, 1001'
  ):
    make('cifar10', 16)


def check_faces(source, numbers):
  """Checks that a crop of 160 pixels contains the face and no frame."""
  examples = fetch_all(source)
  levels = np.array(numbers)
  assert examples['images'].shape == (len(levels), 64, 64, 3)
  gaps = examples['images'].astype(int) - levels[:, None, None, None]
  assert abs(gaps).max() <= 1  # JPEG
  return examples


@pytest.mark.parametrize(
  'form', ['archive', 'file', 'folder', 'inside', 'deep']
)
def test_celeba_is_prepared_from_all_forms(make, user_files, form, capsys):
  """Reads the archive, or its unpacked folder, by name or beside the lists."""
  write_celeba(user_files)
  archive, files = user_files / 'img_align_celeba.zip', user_files
  if form == 'file':
    files = archive
  elif form != 'archive':
    target = user_files / 'img_align_celeba' if form == 'deep' else user_files
    with zipfile.ZipFile(archive) as zipped:
      zipped.extractall(target)
    archive.unlink()
    files = user_files / 'img_align_celeba' if form == 'inside' else user_files
  block = {'resolution': 64, 'crop': 160, 'files': str(files)}
  examples = check_faces(make('celeba', **block), range(1, 21))
  assert '20 of the 202,599 images of celeba' in capsys.readouterr().err
  expected = (np.array([attributes(i) for i in range(1, 21)]) + 1) // 2
  np.testing.assert_array_equal(examples['labels'], expected)
  for split, numbers in (
    ('train', range(1, 13)),
    ('validation', range(13, 17)),
    ('test', range(17, 21)),
  ):
    source = make('celeba', split=split, **block)
    check_faces(source, numbers)
    assert source.classes == CLASSES


def test_celeba_crop_is_central(make, user_files):
  """With a crop of 178, 9 columns on each side are white, and no rows."""
  write_celeba(user_files)
  image = fetch_all(make('celeba', 178, crop=178))['images'][4, ..., 0]
  # Rows 20 to 197 of 218; the frame is left in columns alone.
  assert abs(image[:, 20:-20].astype(int) - 5).max() <= 1
  assert (image[:, [0, 4, -5, -1]] > 250).all()


def test_celeba_without_lists_has_no_labels(make, user_files, capsys):
  """The official partition is known."""
  write_celeba(user_files)
  for name in ('list_attr_celeba.txt', 'list_eval_partition.txt'):
    (user_files / name).unlink()
  source = make('celeba', split='train')
  assert 'no labels: list_attr_celeba.txt (26,721,0' in capsys.readouterr().out
  assert source.size == 20  # all below 162,771
  assert source.classes == ()
  assert set(fetch_all(source)) == {'images'}
  with pytest.raises(UserError, match="split='test' must be one of train"):
    make('celeba', split='test')


@pytest.mark.parametrize(
  ('number', 'split'),
  [
    (1, 'train'), (162_770, 'train'), (162_771, 'validation'),
    (182_637, 'validation'), (182_638, 'test'), (202_599, 'test'),
  ],
)  # fmt: skip
def test_official_split_equals_the_published_partition(number, split):
  assert official_split(f'{number:06}.jpg') == split


@pytest.mark.parametrize('file_format', ['array_record', 'tfrecord'])
def test_celeba_is_prepared_from_tfds(make, user_files, file_format):
  """Reads a copy of TFDS's celeb_a, in both of its formats."""
  write_celeb_a(user_files, file_format)
  for split, numbers in (('train', range(1, 13)), ('test', range(17, 21))):
    source = make('celeba', 64, crop=160, split=split)
    examples = check_faces(source, numbers)
    expected = (np.array([attributes(i) for i in numbers]) + 1) // 2
    np.testing.assert_array_equal(examples['labels'], expected)


# Damaged files


def test_damaged_jpeg_is_reported_and_left_out(make, user_files, capsys):
  write_celeba(user_files)
  folder = user_files / 'img_align_celeba'
  with zipfile.ZipFile(user_files / 'img_align_celeba.zip') as archive:
    archive.extractall(user_files)
  cut = folder / '000003.jpg'
  cut.write_bytes(cut.read_bytes()[:300])
  source = make('celeba', 64, files=str(folder), crop=160)
  captured = capsys.readouterr().err
  assert '1 of 20 files in' in captured
  assert '000003.jpg' in captured
  check_faces(source, [1, 2, *range(4, 21)])
  (folder / '000004.jpg').write_bytes(b'')
  (folder / '000018.jpg').write_bytes(b'no picture')
  with pytest.raises(UserError, match=r'3 of 20 files.*repair or remove them'):
    make('celeba', 16, files=str(folder))


def test_damaged_archive_member_is_reported_and_left_out(
  make, user_files, capsys
):
  """The member has a wrong checksum."""
  write_celeba(user_files)
  path = user_files / 'img_align_celeba.zip'
  raw = bytearray(path.read_bytes())
  start = raw.find(b'\xff\xd8', raw.find(b'000007.jpg')) + 400
  raw[start : start + 8] = b'spoiled!'
  path.write_bytes(raw)
  assert make('celeba').size == 19
  assert '1 of 20 files' in (captured := capsys.readouterr().err)
  assert '000007.jpg' in captured


def spoil_archive(user_files):
  path = user_files / 'img_align_celeba.zip'
  path.write_bytes(path.read_bytes()[:5000])


def spoil_attributes(user_files):
  path = user_files / 'list_attr_celeba.txt'
  lines = path.read_text().splitlines()
  path.write_text('\n'.join([*lines[:7], lines[7][:40], *lines[8:]]))


def spoil_partition(user_files):
  path = user_files / 'list_eval_partition.txt'
  path.write_text('\n'.join(path.read_text().splitlines()[:-1]))


def cut_gzip(user_files):
  path = user_files / 'train-images-idx3-ubyte.gz'
  path.write_bytes(path.read_bytes()[:-20])


def write_python_version(user_files):
  (user_files / 'cifar-10-python.tar.gz').touch()


def cut_batch(user_files):
  batches = cifar10_batches()
  cut = {**batches, 'test_batch.bin': batches['test_batch.bin'][:-1]}
  write_cifar10(user_files, cut)


def cut_tar(user_files):
  write_cifar10(user_files, cifar10_batches())
  path = user_files / 'cifar-10-binary.tar.gz'
  path.write_bytes(path.read_bytes()[:200])


DAMAGED = [
  ('celeba', [write_celeba, spoil_archive], 'has 5,000 bytes, the official'),
  ('celeba', [write_celeba, spoil_attributes], 'line 8: expected a name and'),
  ('celeba', [write_celeba, spoil_partition], 'does not list 000020.jpg'),
  ('celeba', [], r'no img_align_celeba.zip or img_align_celeba or celeb_a: '
   r'download img_align_celeba.zip \(1,443,490,838 bytes\) from https://'
   '.*--config.data.files=FOLDER'),
  ('mnist', [write_mnist, cut_gzip], 'train-images.* is damaged'),
  ('mnist', [], r'no train-images-idx3-ubyte.gz or train-images-idx3-ubyte: '),
  ('cifar10', [write_python_version], 'cifar-10-binary.tar.gz'),
  ('cifar10', [cut_batch], 'test_batch.bin in .* is damaged: 61,459 bytes'),
  ('cifar10', [cut_tar], 'is damaged'),
]  # fmt: skip


@pytest.mark.parametrize(('source', 'steps', 'message'), DAMAGED)
def test_damaged_files_raise(
  make, user_files, tmp_path, source, steps, message
):
  for step in steps:
    step(user_files)
  with pytest.raises(UserError, match=message):
    make(source)
  # Nothing is left that looks like a prepared set.
  assert not list((tmp_path / 'prepared').rglob('dataset_info.json'))


def test_mismatched_idx_files_raise(make, user_files):
  write_mnist(user_files)
  write_idx(user_files / 'train-labels-idx1-ubyte.gz', np.arange(29) % 10)
  with pytest.raises(UserError, match='do not belong together'):
    make('mnist')


def test_crop_larger_than_the_images_raises(make, user_files):
  write_celeba(user_files)
  with pytest.raises(UserError, match=r'crop=200 is larger than .* 178x218'):
    make('celeba', crop=200)


# Preparation


def test_incomplete_set_is_prepared_again(make, user_files, capsys):
  """An incomplete set is reported, and replaced when all files are present."""
  write_mnist(user_files, train=10)
  assert make('mnist', split='train').size == 10
  write_mnist(user_files, train=25)
  assert make('mnist', split='train').size == 10
  assert '20 of the 70,000 images of mnist are prep' in capsys.readouterr().err
  make('mnist', act=data.prepare)
  assert make('mnist', split='train').size == 25
  make('mnist', act=data.prepare, files=None)
  assert 'Already prepared' in capsys.readouterr().out


def test_digits_need_no_preparation(make, capsys):
  make('digits', act=data.prepare, files=None)
  assert 'digits needs no preparation' in capsys.readouterr().out


@pytest.fixture
def server(user_files):
  """Serves the user's files on this machine."""
  handler = partial(SimpleHTTPRequestHandler, directory=str(user_files))
  handler.log_message = lambda *_: None
  with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()


def test_downloads_are_verified_and_cached(
  make, user_files, server, monkeypatch
):
  """Failed downloads are reported."""
  write_mnist(user_files)

  def serve(url, spoil=b''):
    files = []
    for file in MNIST.files:
      raw = (user_files / file.names[0]).read_bytes()
      digest = hashlib.sha256(raw + spoil).hexdigest()
      url_of = f'{url}/{file.names[0]}'
      files.append(file._replace(url=url_of, bytes=len(raw), sha256=digest))
    row = data._official_source(MNIST._replace(files=tuple(files)))
    monkeypatch.setitem(data.SOURCES, 'mnist', row)

  serve('http://127.0.0.1:9')  # no server
  with pytest.raises(
    UserError, match=r'ConnectionError\): download train-images'
  ):
    make('mnist', files=None)
  serve(server, spoil=b'of another file')
  with pytest.raises(UserError, match='NonMatchingChecksumError'):
    make('mnist', files=None)
  serve(server)
  assert make('mnist', files=None).size == 40
  for file in user_files.iterdir():
    file.write_bytes(b'')
  assert make('mnist', 16, files=None).size == 40  # from the downloads


KILLED = """
import os, signal, sys
from gan_jax.data import mnist as idx
preprocess, made = idx.preprocess, []
def kill(*args):
  made.append(0)
  if len(made) == 35:  # the test split: train is written
    os.kill(os.getpid(), signal.SIGKILL)
  return preprocess(*args)
idx.preprocess = kill
sys.argv = ['launch.py', *sys.argv[1:]]
import runpy
runpy.run_path('launch.py', run_name='__main__')
"""


@pytest.mark.processes
def test_killed_preparation_is_repeated(user_files, tmp_path):
  """Files of a process after SIGKILL never count as a prepared set."""
  write_mnist(user_files)
  flags = (
    '--config=experiments/dcgan_mnist.py',
    '--mode=prepare',
    f'--config.data.files={user_files}',
    f'--config.data.dir={tmp_path}',
  )
  killed = subprocess.run(
    [sys.executable, '-c', KILLED, *flags], cwd=ROOT, check=False
  )
  assert killed.returncode == -signal.SIGKILL
  folder = tmp_path / 'gan_jax_mnist' / '32x32_grey'
  unfinished = folder / '.new'
  assert unfinished.exists()
  again = subprocess.run(
    launch(*flags), cwd=ROOT, check=True, capture_output=True, text=True
  )
  assert 'mnist, 30 images of 32x32, 10 labels' in again.stdout
  assert not unfinished.exists()
  assert [path.name for path in folder.glob('[!.]*')] == ['1.0.0']


def test_one_process_prepares_at_a_time(make, user_files, tmp_path, capsys):
  """A second process waits, and then opens the prepared set."""
  write_mnist(user_files)
  assert make('mnist').size == 40
  prepared_set = tmp_path / 'prepared/gan_jax_mnist/32x32_rgb/1.0.0'
  aside = tmp_path / 'aside'
  prepared_set.rename(aside)
  with (prepared_set.parent / '.lock').open('w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    sizes = []
    waiting = threading.Thread(target=lambda: sizes.append(make('mnist').size))
    waiting.start()
    while 'Waiting for another process' not in capsys.readouterr().out:
      time.sleep(0.05)
    shutil.rmtree(user_files)  # so it cannot prepare the set itself
    aside.rename(prepared_set)
  waiting.join()
  assert sizes == [40]


def test_unwritable_folder_raises(make, user_files, tmp_path):
  write_mnist(user_files)
  (tmp_path / 'file').touch()
  with pytest.raises(UserError, match=r'set --config\.data\.dir'):
    make('mnist', dir=str(tmp_path / 'file' / 'below'))


def test_too_little_disk_space_raises(make, user_files, monkeypatch):
  write_mnist(user_files)
  usage = shutil.disk_usage(user_files)._replace(free=1000)
  monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage)
  with pytest.raises(UserError, match=r'has 0\.000 GB free, but 0\.000 GB are'):
    make('mnist')


def test_set_in_a_bucket_is_uploaded_and_cached(
  make, user_files, tmp_path, monkeypatch
):
  """The set is prepared locally and uploaded, and downloaded once before
  reading.
  """
  for module in (files_of, store, prepared):
    remote = lambda path: 'bucket' in str(path)
    monkeypatch.setattr(module, 'is_remote', remote)
  machine = lambda name: monkeypatch.setenv(
    'XDG_CACHE_HOME', f'{tmp_path}/{name}'
  )
  bucket = tmp_path / 'bucket'
  settings = {'dir': str(bucket)}
  write_mnist(user_files)
  machine('one')
  assert make('mnist', **settings).size == 40
  (info,) = bucket.rglob('dataset_info.json')
  assert list(bucket.rglob('*.array_record*'))
  machine('two')
  shutil.rmtree(user_files)  # so the set must be downloaded
  fetched = make('mnist', split='train', **settings).fetch(np.arange(30))
  assert (fetched['images'][:, 4, 4, 0] == np.arange(30)).all()
  # An incomplete copy and an outdated one are downloaded again.
  (local,) = (tmp_path / 'two').rglob('dataset_info.json')
  local.unlink()
  assert make('mnist', **settings).size == 40
  assert local.read_text() == info.read_text()
  info.write_text(info.read_text() + '\n')
  make('mnist', **settings)
  assert local.read_text() == info.read_text()


def test_bucket_needs_gcsfs(make, monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(UserError, match=r"pip install -e '\.\[gcs\]'"):
    make('mnist', dir='gs://somewhere')
