"""Tests of paired images and patches, and of files without a partner."""

import pickle

import numpy as np
import pytest
from PIL import Image
from test_data import make

from gan_jax.data.patches import corners
from gan_jax.errors import UserError


def grey(path, *levels, size=(8, 8)):
  """Writes an image of vertical stripes, one for each level."""
  path.parent.mkdir(parents=True, exist_ok=True)
  stripes = [np.full((size[1], size[0]), level) for level in levels]
  pixels = np.concatenate(stripes, axis=1).astype(np.uint8)
  Image.fromarray(pixels).convert('RGB').save(path)


def levels(examples, name):
  return examples[name].mean((1, 2, 3)).round().tolist()


@pytest.mark.parametrize('bytes_on_device', (2**30, 0))
def test_pairs_are_halves_of_side_by_side_files(tmp_path, bytes_on_device):
  for i in range(3):
    grey(tmp_path / f'{i}.png', 10 * i, 100 + 10 * i)
  source = make(f'pairs:{tmp_path}', 4, 3, max_device_bytes=bytes_on_device)
  assert (source.size, source.decodes) == (3, not bytes_on_device)
  assert source.example_bytes == 2 * 4 * 4 * 3
  examples = pickle.loads(pickle.dumps(source.fetch))(np.array([2, 0]))
  assert {name: x.shape for name, x in examples.items()} == {
    'a': (2, 4, 4, 3),
    'b': (2, 4, 4, 3),
  }
  assert levels(examples, 'a') == [20, 0]
  assert levels(examples, 'b') == [120, 100]


def test_pairs_of_two_folders_are_matched_by_name(tmp_path, capsys):
  """Suffixes and sizes do not matter; sub-folders are part of a name."""
  for i, name in enumerate(('x/1', 'x/2', '3', 'alone')):
    grey(tmp_path / 'a' / f'{name}.png', 10 * i)
  for i, name in enumerate(('x/2', '3', 'x/1')):
    grey(tmp_path / 'b' / f'{name}.bmp', 100 + 10 * i, size=(16, 16))
  source = make(f'pairs:{tmp_path}/a,{tmp_path}/b', 4, 1)
  examples = source.fetch(np.arange(3))
  assert levels(examples, 'a') == [20, 0, 10]  # 3, x/1, x/2
  assert levels(examples, 'b') == [110, 120, 100]
  (line,) = capsys.readouterr().err.splitlines()
  assert 'a/alone.png' in line
  assert '1 files have no partner' in line
  before = source.fingerprint()
  (tmp_path / 'b' / '3.bmp').write_bytes(b'changed')
  assert source.fingerprint().content != before.content


def test_damaged_partner_is_reported_and_left_out(tmp_path, capsys):
  for i in range(12):
    grey(tmp_path / 'a' / f'{i:02}.png', i)
    grey(tmp_path / 'b' / f'{i:02}.png', 100 + i)
  (tmp_path / 'b' / '05.png').write_bytes(b'\x89PNG\r\n\x1a\n')
  source = make(f'pairs:{tmp_path}/a,{tmp_path}/b', 4, 1)
  assert source.size == 11
  assert levels(source.fetch(np.arange(11)), 'a').count(5) == 0
  assert '05.png' in capsys.readouterr().err


def test_invalid_pairs_raise(tmp_path):
  grey(tmp_path / 'a' / '1.png', 0)
  grey(tmp_path / 'b' / '2.png', 0)
  (tmp_path / 'empty').mkdir()
  for source, message in (
    ('pairs:', "no folder ''"),
    (f'pairs:{tmp_path}/a,{tmp_path}/none', "no folder '.*none'"),
    (f'pairs:{tmp_path}/empty', '0 pairs of images'),
    (f'pairs:{tmp_path}/a,{tmp_path}/b', '0 pairs of images'),
    (f'pairs:{tmp_path}/a,{tmp_path}/b,{tmp_path}/a', '3 folders'),
  ):
    with pytest.raises(UserError, match=message):
      make(source, 4, 1)
  grey(tmp_path / 'a' / '1.bmp', 0)
  with pytest.raises(UserError, match='same name without the suffix'):
    make(f'pairs:{tmp_path}/a,{tmp_path}/b', 4, 1)


def test_corners_equal_those_of_basicsr():
  """By hand, from BasicSR's worker: steps of half a patch, then the border."""
  assert corners(481, 96) == [*range(0, 385, 48), 385]
  assert corners(96, 96) == [0]
  assert corners(144, 96) == [0, 48]
  assert corners(100, 96) == [0, 4]


@pytest.mark.parametrize('bytes_on_device', (2**30, 0))
def test_patches_are_cut_from_images_of_any_size(
  tmp_path, capsys, bytes_on_device
):
  ramp = np.arange(7 * 10, dtype=np.uint8).reshape(7, 10)
  Image.fromarray(ramp).save(tmp_path / '1.png')
  grey(tmp_path / 'deep' / '2.png', 200, size=(4, 5))
  grey(tmp_path / 'small.png', 0, size=(3, 20))
  source = make(f'patches:{tmp_path}', 4, 1, max_device_bytes=bytes_on_device)
  # 1.png: rows 0, 2, 3 and columns 0, 2, 4, 6; 2.png: rows 0, 1.
  assert source.size == 3 * 4 + 2
  fetch = pickle.loads(pickle.dumps(source.fetch))
  images = fetch(np.arange(source.size))['images']
  assert images.shape == (14, 4, 4, 1)
  np.testing.assert_array_equal(images[5, :, :, 0], ramp[2:6, 2:6])
  np.testing.assert_array_equal(images[11, :, :, 0], ramp[3:, 6:])
  assert (images[12:] == 200).all()
  (line,) = capsys.readouterr().err.splitlines()
  assert 'small.png' in line
  assert 'smaller than a patch of 4x4' in line


def test_invalid_patches_raise(tmp_path):
  with pytest.raises(UserError, match='no folder'):
    make('patches:', 4)
  with pytest.raises(UserError, match='has no images'):
    make(f'patches:{tmp_path}', 4)
  grey(tmp_path / '1.png', 0)
  with pytest.raises(UserError, match='at least 9x9'):
    make(f'patches:{tmp_path}', 9)
  with pytest.raises(UserError, match='does not crop'):
    make(f'patches:{tmp_path}', 4, crop=4)
  (tmp_path / '2.png').write_bytes(b'')
  with pytest.raises(UserError, match=r'1 of 2 files .*2\.png'):
    make(f'patches:{tmp_path}', 4)
