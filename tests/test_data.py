"""Tests of data: the stream, preprocessing, and sources of every type."""

import tarfile
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image
from schedules import one_segment_schedule

from gan_jax import data
from gan_jax.data.mnist import parse_idx
from gan_jax.data.on_device import read
from gan_jax.data.order import Stream
from gan_jax.data.preprocess import preprocess
from gan_jax.data.source import DataSpec, in_memory
from gan_jax.errors import UserError
from gan_jax.training.feed import index_batch


def make(source, resolution=16, channels=3, **more):
  block = {
    'source': source,
    'resolution': resolution,
    'channels': channels,
    'crop': None,
    'split': 'train',
    'dir': None,
    'files': None,
    'max_device_bytes': 2**30,
    **more,
  }
  return data.make(ConfigDict({'data': block}))


def preprocessed(image, resolution, channels, crop=None):
  return preprocess(image, DataSpec('', resolution, channels, crop))


# The stream


def test_each_epoch_is_a_shuffled_pass():
  stream = Stream(seed=3, size=10)
  epochs = stream.indices(np.arange(30)).reshape(3, 10)
  for epoch in epochs:
    assert sorted(epoch) == list(range(10))
  assert len({tuple(epoch) for epoch in epochs}) == 3


def test_position_n_is_a_pure_function_of_seed_and_n():
  jumped = Stream(0, 10).indices(np.array([27, 3]))
  straight = Stream(0, 10).indices(np.arange(30))
  assert jumped.tolist() == [straight[27], straight[3]]
  assert Stream(1, 10).indices(np.arange(30)).tolist() != straight.tolist()


def make_schedule(**segment):
  return one_segment_schedule(48, 3, **segment)


def test_iterations_take_the_next_positions():
  """Six iterations of two D updates of four: positions 0..47, in order."""
  stream, schedule = Stream(0, 20), make_schedule()
  batches = [
    index_batch(stream, None, schedule, lambda n: slice(n), step).disc
    for step in (0, 3)
  ]
  taken = np.concatenate([batch['index'].ravel() for batch in batches])
  np.testing.assert_array_equal(taken, stream.indices(np.arange(48)))
  for batch in batches:
    assert batch['example'].tolist() == 3 * [[[0, 1, 2, 3], [4, 5, 6, 7]]]


def test_gen_batch_has_its_own_keys():
  """G's examples have keys of no D update, and repeat the iteration's
  positions.
  """
  stream, schedule = Stream(0, 20), make_schedule(gen_batch_size=12)
  batch = index_batch(stream, None, schedule, lambda n: slice(n), 0).gen
  assert batch['example'][1].tolist() == list(range(8, 20))
  positions = 8 + np.array([0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3])
  np.testing.assert_array_equal(batch['index'][1], stream.indices(positions))


def test_processes_split_the_batch():
  """The halves of two processes together equal the batch of one process."""
  stream, schedule = Stream(0, 20), make_schedule(gen_batch_size=8)
  first, second = (lambda n: slice(n // 2)), (lambda n: slice(n // 2, n))
  halves = [
    index_batch(stream, None, schedule, rows, 3) for rows in (first, second)
  ]
  whole = index_batch(stream, None, schedule, lambda n: slice(n), 3)
  for player in ('gen', 'disc'):
    for name, expected in getattr(whole, player).items():
      parts = [getattr(half, player)[name] for half in halves]
      np.testing.assert_array_equal(np.concatenate(parts, -1), expected)


@pytest.mark.parametrize('flip', [False, True])
def test_fetched_and_resident_batches_are_equal(flip):
  """The host fetches one batch, and the device gathers the other."""
  pixels = np.random.default_rng(0).integers(0, 256, (20, 2, 3, 1), np.uint8)
  source = in_memory(
    {'images': pixels, 'labels': np.arange(20, dtype=np.int32)}
  )
  stream, schedule, rows = Stream(0, 20), make_schedule(), lambda n: slice(n)
  arguments = jax.random.key(0), jnp.int32(5)
  batches = []
  for host_source, dataset in (
    (source, {}),
    (None, jax.tree.map(jnp.asarray, source.fetch(np.arange(20)))),
  ):
    batch = index_batch(stream, host_source, schedule, rows, 0).disc
    batch = jax.tree.map(lambda x: x[0], batch)
    batches.append(
      jax.jit(partial(read, flip=flip))(dataset, batch, *arguments)
    )
  for name in ('images', 'labels', 'example'):
    np.testing.assert_array_equal(batches[0][name], batches[1][name])
  index = stream.indices(np.arange(8)).reshape(2, 4)
  plain = pixels[index] / 127.5 - 1
  images = np.asarray(batches[0]['images'])
  straight = np.isclose(images, plain, atol=1e-6).all((2, 3, 4))
  mirrored = np.isclose(images, plain[..., ::-1, :], atol=1e-6).all((2, 3, 4))
  assert (straight | mirrored).all()
  assert straight.all() != flip  # with this seed at least one of 8 is mirrored
  assert abs(images).max() <= 1


# Preprocessing


def test_transparency_is_composited_on_white():
  """Half-transparent red on white is (255, 127, 127)."""
  half = Image.new('RGBA', (8, 8), (255, 0, 0, 127))
  assert preprocessed(half, 8, 3)[0, 0] == pytest.approx([255, 128, 128], abs=1)
  clear = Image.new('LA', (8, 8), (0, 0))
  assert (preprocessed(clear, 8, 1) == 255).all()


def test_grey_becomes_rgb_and_back():
  grey = preprocessed(Image.new('L', (8, 8), 77), 8, 3)
  assert grey.shape == (8, 8, 3)
  assert (grey == 77).all()
  # ITU-R 601: 0.299 R + 0.587 G + 0.114 B.
  rgb = preprocessed(Image.new('RGB', (8, 8), (100, 200, 50)), 8, 1)
  assert rgb.shape == (8, 8, 1)
  assert rgb[0, 0, 0] == pytest.approx(
    0.299 * 100 + 0.587 * 200 + 0.114 * 50, abs=1
  )


def test_sixteen_bits_are_scaled_not_clipped():
  deep = Image.fromarray(np.full((8, 8), 0x8000, np.uint16))
  assert (preprocessed(deep, 8, 1) == 0x80).all()


def test_the_centre_is_cropped_to_a_square():
  """Of a 20x8 image, the central 8 columns are white."""
  pixels = np.zeros((8, 20, 3), np.uint8)
  pixels[:, 6:14] = 255
  assert (preprocessed(Image.fromarray(pixels), 8, 3) == 255).all()


def test_resizing_is_anti_aliased():
  """A checkerboard with fields of one pixel becomes grey when it is reduced."""
  board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
  small = preprocessed(Image.fromarray(board), 8, 1)
  assert abs(small.astype(int) - 127).max() < 16


# Sources


def test_digits_have_500_images_of_each_class():
  source = make('digits', 28, 1)
  examples = source.fetch(np.arange(source.size))
  assert examples['images'].shape == (5000, 28, 28, 1)
  assert np.bincount(examples['labels']).tolist() == 10 * [500]
  assert source.example_bytes == 28 * 28 + 4


@pytest.fixture(scope='session')
def cifar10(shared, tmp_path_factory):
  folder = tmp_path_factory.mktemp('cifar10')
  with tarfile.open(shared / 'cifar10_jpg.tar.xz') as archive:
    archive.extractall(folder, filter='data')
  (test,) = folder.rglob('test')
  return test


@pytest.mark.slow  # unpacks 60,000 files
def test_genuine_jpegs_in_class_folders(cifar10):
  source = make(f'folder:{cifar10}', 32, 3)
  examples = source.fetch(np.arange(source.size))
  assert examples['images'].shape == (10_000, 32, 32, 3)
  assert np.bincount(examples['labels']).tolist() == 10 * [1000]
  assert source.classes[:3] == ('airplane', 'automobile', 'bird')
  # CIFAR-10's well-known channel means, .4914, .4822, .4465.
  mean = examples['images'].mean((0, 1, 2)) / 255
  assert mean == pytest.approx([0.4914, 0.4822, 0.4465], abs=0.01)


def test_genuine_transparent_pngs(shared, tmp_path):
  with tarfile.open(shared / 'noto_emoji_128.tar.xz') as archive:
    archive.extractall(tmp_path, filter='data')
  source = make(f'folder:{tmp_path}/128', 32, 3)
  examples = source.fetch(np.arange(source.size))
  assert examples['images'].shape == (3583, 32, 32, 3)
  assert 'labels' not in examples
  # Drawings on a transparent background: most corners are white.
  assert np.mean(examples['images'][:, 0, 0] == 255) > 0.9


def test_crop_is_central():
  """Of a 20x12 image, the central 4x4 pixels are white."""
  pixels = np.zeros((12, 20), np.uint8)
  pixels[4:8, 8:12] = 255
  image = Image.fromarray(pixels)
  assert (preprocessed(image, 4, 1, crop=4) == 255).all()
  assert (preprocessed(image, 6, 1, crop=6) == 255).sum() == 16
  with pytest.raises(UserError, match=r'crop=13 is larger than .* 20x12'):
    preprocessed(image, 4, 1, crop=13)


@pytest.fixture
def pictures(tmp_path):
  """Writes two images of each of two classes, in three formats."""
  for i, name in enumerate(('a/1.png', 'a/deep/2.JPG', 'b/3.webp', 'b/4.jpeg')):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (10 + i, 12), (50 * i,) * 3).save(path)
  return tmp_path


def test_folders_are_labels(pictures):
  (pictures / 'b' / 'notes.txt').write_text('no picture')
  source = make(f'folder:{pictures}')
  examples = source.fetch(np.arange(4))
  assert examples['labels'].tolist() == [0, 0, 1, 1]
  assert source.classes == ('a', 'b')
  levels = examples['images'].mean((1, 2, 3))
  assert levels == pytest.approx([0, 50, 100, 150], abs=2)


def test_a_few_damaged_files_are_reported_and_left_out(pictures, capsys):
  for i in range(20):
    Image.new('L', (8, 8)).save(pictures / 'a' / f'more{i}.png')
  (pictures / 'a' / 'cut.png').write_bytes(b'\x89PNG\r\n\x1a\n')
  assert make(f'folder:{pictures}').size == 24
  captured = capsys.readouterr().err
  assert '1 of 25 files' in captured
  assert 'cut.png' in captured


def test_too_many_damaged_files_raise(pictures):
  (pictures / 'a' / 'cut.png').write_bytes(b'')
  with pytest.raises(UserError, match=r'1 of 5 files .*cut\.png'):
    make(f'folder:{pictures}')


def test_animations_are_reported_and_give_their_first_frame(tmp_path, capsys):
  """GIF and BMP files are read too."""
  plain = lambda level: Image.new('RGB', (12, 12), (level,) * 3)
  plain(40).save(tmp_path / '0.bmp')
  plain(80).save(tmp_path / '1.GIF')
  many = {'save_all': True, 'append_images': [plain(250), plain(5)]}
  plain(120).save(tmp_path / '2.gif', **many)
  plain(160).save(tmp_path / '3.png', **many)
  plain(200).save(tmp_path / '4.webp', lossless=True, **many)
  for bytes_on_device in (2**30, 0):  # on the device, and streamed
    source = make(f'folder:{tmp_path}', max_device_bytes=bytes_on_device)
    images = source.fetch(np.arange(5))['images']
    levels = images.reshape(5, -1)
    assert (levels.min(1) == levels.max(1)).all()
    assert levels[:, 0].tolist() == [40, 80, 120, 160, 200]
    (line,) = capsys.readouterr().err.splitlines()
    assert '3 of 5 files' in line
    assert 'animations' in line


@pytest.mark.parametrize('path', ['/nowhere', './x', '~/x', '../x', 'here'])
def test_path_as_source_raises(path, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'here').mkdir()
  with pytest.raises(UserError) as captured:
    make(path)
  assert f'--config.data.source=folder:{path}' in str(captured.value)


@pytest.mark.parametrize(
  ('source', 'message'),
  [
    ('digitz', "did you mean 'digits'"),
    ('folder:', 'name a folder of images'),
    ('folder:/nowhere', "no folder '/nowhere'"),
    ('tfds:', 'names no data set'),
    ('tfds:no_such_set', 'no_such_set is not prepared in .*--mode=prepare'),
    ('digits:/somewhere', 'embedded'),
  ],
)
def test_wrong_source_raises(source, message):
  with pytest.raises(UserError, match=message):
    make(source)


def test_folder_without_images_raises(tmp_path):
  with pytest.raises(UserError, match='has 0 images'):
    make(f'folder:{tmp_path}')


def test_damaged_idx_file_raises(tmp_path):
  good = bytes([0, 0, 8, 1, 0, 0, 0, 4]) + b'1234'
  assert parse_idx(good, tmp_path).tolist() == [49, 50, 51, 52]
  for content, message in (
    (good[:-1], '3 bytes of data, but needs 4'),
    (good[:6], 'ends in its header'),
    (b'PK' + good, 'not an IDX file'),
  ):
    with pytest.raises(UserError, match=message):
      parse_idx(content, tmp_path)


def test_unsupported_channels_raise(tmp_path):
  with pytest.raises(UserError, match=r'1 .* or 3 .*, not 4'):
    make('digits', 28, 4)
