"""Tests of the catalogue of TFDS: read without TensorFlow, prepared with it."""

import gzip
import io
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from conftest import ROOT, launch
from ml_collections import ConfigDict
from PIL import Image

from gan_jax import data
from gan_jax.errors import UserError


class Flags(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A data set as TFDS prepares it: PNGs of two sizes, with classes."""

  VERSION = tfds.core.Version('1.2.0')

  def _info(self):
    features = {
      'file_name': tfds.features.Text(),
      'image': tfds.features.Image(shape=(None, None, 3)),
      'label': tfds.features.ClassLabel(names=['even', 'odd']),
    }
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(features),
      disable_shuffling=True,
    )

  def _split_generators(self, manager):
    return {'train': self._examples(0, 24), 'test': self._examples(24, 30)}

  def _generate_examples(self):
    raise NotImplementedError

  def _examples(self, first, end):
    for i in range(first, end):
      file = io.BytesIO()
      Image.new('RGB', (20, 12 + i % 2), (8 * i, 0, 255)).save(file, 'PNG')
      file.seek(0)
      yield i, {'file_name': f'{i}.png', 'image': file, 'label': i % 2}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('tfds')
  Flags(data_dir=folder, file_format='array_record').download_and_prepare()
  return folder


def make(folder, source, act=data.make, **more):
  block = {
    'source': source,
    'resolution': 8,
    'channels': 3,
    'crop': None,
    'split': 'train',
    'dir': str(folder),
    'files': None,
    'max_device_bytes': 2**30,
    **more,
  }
  return act(ConfigDict({'data': block}))


@pytest.mark.parametrize('name', ['tfds:flags', 'tfds:flags:1.2.0'])
def test_prepared_set_is_read(folder, name):
  source = make(folder, name)
  assert (source.size, source.classes) == (24, ('even', 'odd'))
  examples = source.fetch(np.array([5, 0, 23]))
  assert examples['images'].shape == (3, 8, 8, 3)
  assert examples['images'][:, 3, 3].tolist() == [
    [40, 0, 255], [0, 0, 255], [184, 0, 255],
  ]  # fmt: skip
  assert examples['labels'].tolist() == [1, 0, 1]
  assert make(folder, name, split='all').size == 30


def test_labels_and_fingerprint_need_no_decoding(folder, tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  monkeypatch.setattr('gan_jax.data.catalogue.decode', None)
  source = make(folder, 'tfds:flags', split='all')
  assert source.labels().tolist() == [i % 2 for i in range(30)]
  assert source.labels().dtype == np.int32
  parts = {
    split: make(folder, 'tfds:flags', split=split).fingerprint()
    for split in ('train', 'test', 'train[:50%]', 'all')
  }
  assert len(set(parts.values())) == 4
  copy = shutil.copytree(folder, tmp_path / 'copy')
  of_copy = lambda: make(copy, 'tfds:flags').fingerprint()
  assert of_copy() == parts['train']
  (shard,) = copy.rglob('*train.array_record*')
  content = bytearray(shard.read_bytes())
  content[-1] ^= 1
  shard.write_bytes(content)
  assert of_copy() != parts['train']


def test_reading_does_not_import_tensorflow(folder):
  """Even if TensorFlow is installed."""
  code = f"""
import sys
sys.path.insert(0, 'tests')
from test_catalogue import make
import numpy as np
make({str(folder)!r}, 'tfds:flags').fetch(np.arange(3))
assert 'tensorflow' not in sys.modules
"""
  subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)


@pytest.mark.parametrize(
  ('source', 'more', 'message'),
  [
    ('tfds:flogs', {}, 'flogs is not prepared in .*--mode=prepare'),
    ('tfds:flags', {'split': 'dev'}, "split='dev' must be one of train, test"),
    ('tfds:', {}, 'names no data set'),
  ],
)
def test_unknown_sets_raise(folder, source, more, message):
  with pytest.raises(UserError, match=message):
    make(folder, source, **more)


def test_tfrecord_has_no_random_access(folder, tmp_path):
  copy = tmp_path / 'flags' / '1.2.0'
  copy.mkdir(parents=True)
  for file in (folder / 'flags' / '1.2.0').iterdir():
    content = file.read_bytes().replace(b'"array_record"', b'"tfrecord"')
    (copy / file.name).write_bytes(content)
  with pytest.raises(UserError, match='as tfrecord, which does not support'):
    make(tmp_path, 'tfds:flags')


def test_prepare_needs_tensorflow(folder, monkeypatch):
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  with pytest.raises(UserError, match=r"pip install -e '\.\[prepare\]'"):
    make(folder, 'tfds:mnist', act=data.prepare)


@pytest.mark.slow
def test_official_builder_prepares_genuine_mnist(shared, tmp_path):
  """TFDS prepares tfds:mnist with TensorFlow."""
  pytest.importorskip('tensorflow', reason="needs the extra 'prepare'")
  fill_downloads(tmp_path / 'downloads', shared / 'mnist')
  flags = (
    '--config=experiments/dcgan_mnist.py',
    '--config.data.source=tfds:mnist',
    f'--config.data.dir={tmp_path}',
  )
  prepared = subprocess.run(
    launch('--mode=prepare', *flags),
    cwd=ROOT,
    check=True,
    capture_output=True,
    text=True,
  )
  assert 'tfds:mnist, 60,000 images of 32x32' in prepared.stdout
  source = make(
    tmp_path, 'tfds:mnist', resolution=28, channels=1, split='train'
  )
  examples = source.fetch(np.arange(source.size))
  assert np.bincount(examples['labels'])[:3].tolist() == [5923, 6742, 5958]
  assert examples['images'].mean() / 255 == pytest.approx(0.1307, abs=5e-5)


def fill_downloads(folder, files):
  """Fills the cache of TFDS's download manager with the files."""
  resource = tfds.download.resource
  known = tfds.core.download.checksums.get_all_url_infos()
  for file in files.glob('*.gz'):
    (url,) = (
      url for url in known
      if url.startswith('https://') and url.endswith(f'/mnist/{file.name}')
    )  # fmt: skip
    info = known[url]
    path = folder / 'mnist' / resource.get_dl_fname(url, info.checksum)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(gzip.decompress(file.read_bytes())))
    resource.write_info_file(
      url=url,
      path=path,
      dataset_name='mnist',
      original_fname=file.name,
      url_info=info,
    )
