"""Tests that Inception is exactly the network of FID."""

import gzip
import io
import tarfile
from functools import partial

import fidelity
import inception_weights as files
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from gan_jax.errors import UserError
from gan_jax.metrics import inception
from gan_jax.metrics.features import FEATURES

ALL_OUTPUTS = tuple(inception.OUTPUT_WIDTHS)
features = jax.jit(inception.features, static_argnames='outputs')

# The outputs of torch-fidelity 0.4.0 for `pattern()` and `random_arrays()`: the
# first three features of each, and the last one.
BY_TORCH_FIDELITY = {
  '64': [0.3362728, 0.5369259, 0.2667165, 0.2648753],
  '192': [0.5146838, 0.03376826, 0.3718138, 0.1158967],
  '768': [2.317403, 1.294832, 0.006255922, 0.187736],
  '2048': [0.3949879, 0.0, 0.1183239, 0.4145918],
  'logits_unbiased': [0.05100948, -0.09692013, 1.12558, -0.1388197],
  'logits': [-1.732106, -0.5549153, -0.7817039, -0.5330443],
}


def pattern():
  """Makes an image that is neither square nor smooth: uint8 [1, 20, 24, 3]."""
  y, x, c = np.ogrid[:20, :24, :3]
  image = (7 * y * y + 11 * x * (c + 1) + 90 * c) % 256
  return image.astype(np.uint8)[None]


@pytest.fixture(scope='module')
def weights_file(tmp_path_factory):
  path = tmp_path_factory.mktemp('inception') / 'random.pth'
  files.write_arrays(path, files.random_arrays())
  return path


@pytest.fixture
def cache(tmp_path, monkeypatch):
  """Makes an empty cache, and unsets the variable that names a file."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  monkeypatch.delenv('GAN_JAX_INCEPTION', raising=False)
  return tmp_path


def test_features_equal_torch_fidelity(weights_file):
  network = inception.load(weights_file)
  outputs = features(network.weights, pattern(), ALL_OUTPUTS)
  assert {k: x.shape for k, x in outputs.items()} == {
    '64': (1, 64), '192': (1, 192), '768': (1, 768), '2048': (1, 2048),
    'logits_unbiased': (1, 1008), 'logits': (1, 1008),
  }  # fmt: skip
  for name, expected in BY_TORCH_FIDELITY.items():
    assert outputs[name].dtype == np.float32
    got = outputs[name][0, np.array([0, 1, 2, -1])]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=2e-6)


def test_features_have_their_recorded_version(weights_file, monkeypatch):
  """If the numbers above change on purpose, the version is raised by one."""
  monkeypatch.setenv('GAN_JAX_INCEPTION', str(weights_file))
  network = FEATURES['inception']()
  assert network.version == 1
  outputs = jax.jit(network.extract)(network.weights, pattern())['features']
  assert outputs[0, :3] == pytest.approx(
    BY_TORCH_FIDELITY['2048'][:3], rel=1e-4
  )


def test_grey_images_equal_repeated_channels(weights_file):
  weights = inception.load(weights_file).weights
  grey = pattern()[..., :1]
  first, second = (
    jax.jit(partial(inception.features, outputs=('64',)))(weights, images)
    for images in (grey, np.repeat(grey, 3, axis=-1))
  )
  np.testing.assert_allclose(first['64'], second['64'], rtol=1e-6)


def test_convolutions_and_matmuls_have_full_precision():
  """TF32 on GPUs and bfloat16 on TPUs would change the scores."""
  shapes = jax.eval_shape(lambda: inception.fold(files.random_arrays()))
  images = jax.ShapeDtypeStruct((1, 8, 8, 3), np.uint8)
  lowered = features.lower(shapes, images, ALL_OUTPUTS).as_text().splitlines()
  operations = [x for x in lowered if 'convolution(' in x or 'dot_general' in x]
  assert len(operations) == 94 + 1
  assert all(x.count('HIGHEST') == 2 for x in operations)


def test_wrong_channels_and_outputs_raise():
  with pytest.raises(UserError, match='1 or 3 channels, not 4'):
    inception.features({}, np.zeros((1, 8, 8, 4), np.uint8))
  shapes = jax.eval_shape(lambda: inception.fold(files.random_arrays()))
  images = jax.ShapeDtypeStruct((1, 8, 8, 3), np.uint8)
  with pytest.raises(UserError, match=r"'pool'.*2048"):
    jax.eval_shape(
      partial(inception.features, outputs=('pool',)), shapes, images
    )


def test_resize_by_hand():
  """2x2 -> 4x4: positions 0, 1/2, 1, 3/2, where the last equals 1."""
  x = jnp.array([[0.0, 10.0], [20.0, 40.0]])[None, ..., None]
  np.testing.assert_array_equal(
    inception.resize(x, 4)[0, ..., 0],
    [
      [0, 5, 10, 10],
      [10, 17.5, 25, 25],
      [20, 30, 40, 40],
      [20, 30, 40, 40],
    ],
  )


@pytest.mark.parametrize(('h', 'w', 'size'), [(5, 7, 11), (23, 12, 5)])
def test_resize_against_a_loop_in_float64(h, w, size):
  x = np.random.default_rng(0).integers(0, 256, (h, w)).astype(np.float64)
  expected = np.zeros((size, size))
  for i in range(size):
    for j in range(size):
      y0, x0 = i * h // size, j * w // size
      y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
      dy, dx = i * h / size - y0, j * w / size - x0
      expected[i, j] = (1 - dy) * ((1 - dx) * x[y0, x0] + dx * x[y0, x1]) + (
        dy * ((1 - dx) * x[y1, x0] + dx * x[y1, x1])
      )
  got = inception.resize(jnp.asarray(x, jnp.float32)[None, ..., None], size)
  np.testing.assert_allclose(got[0, ..., 0], expected, atol=2e-4)


def test_border_averages_exclude_padding():
  x = jnp.arange(9.0).reshape(1, 3, 3, 1)
  np.testing.assert_allclose(
    inception.average(x)[0, ..., 0],
    [[2, 2.5, 3], [3.5, 4, 4.5], [5, 5.5, 6]],
    rtol=1e-6,
  )


def test_batch_norm_is_folded():
  arrays = {
    'a.conv.weight': np.array([[[[1.0, 2.0]]], [[[3.0, 4.0]]]]),
    'a.bn.weight': np.array([1.0, 6.0]),
    'a.bn.bias': np.array([0.5, 0.0]),
    'a.bn.running_mean': np.array([0.0, 1.0]),
    'a.bn.running_var': np.array([0.999, 8.999]),
    'fc.weight': np.array([[1.0, 2.0]]),
    'fc.bias': np.array([3.0]),
  }
  weights = inception.fold(arrays)
  kernel = [[[[1, 6]], [[2, 8]]]]  # HWIO
  np.testing.assert_allclose(weights['a']['kernel'], kernel, rtol=1e-6)
  np.testing.assert_allclose(weights['a']['bias'], [0.5, -2], rtol=1e-6)
  np.testing.assert_array_equal(weights['fc']['kernel'], [[1], [2]])


def test_missing_weights_error_says_where_to_get_them(cache):
  assert not inception.FILE.is_available()
  with pytest.raises(UserError) as raised:
    inception.load()
  message = str(raised.value)
  for part in (
    inception.URL,
    inception.NAME,
    '6726825d',
    f'into {cache / "gan_jax"}',
    'GAN_JAX_INCEPTION=FILE',
  ):
    assert part in message
  assert '\n' not in message


@pytest.mark.parametrize('folder', ['gan_jax', 'torch/hub/checkpoints'])
def test_cached_file_must_be_official(cache, folder):
  path = cache / folder / inception.NAME
  path.parent.mkdir(parents=True)
  path.write_bytes(b'half of it')
  assert inception.FILE.is_available()
  with pytest.raises(UserError, match=f'{folder}.* is damaged.*6726825d'):
    inception.load()


def test_explicit_file_may_have_other_weights(cache, monkeypatch, weights_file):
  monkeypatch.setenv('GAN_JAX_INCEPTION', str(weights_file))
  assert inception.FILE.is_available()
  network = inception.load()
  assert len(network.sha256) == 64 and network.sha256 != inception.SHA256
  monkeypatch.setenv('GAN_JAX_INCEPTION', str(cache / 'nowhere.pth'))
  assert not inception.FILE.is_available()
  with pytest.raises(UserError, match=r'nowhere\.pth'):
    inception.load()


def test_weights_of_another_network_raise(tmp_path):
  path = tmp_path / 'other.pth'
  arrays = files.random_arrays()
  arrays |= {'fc.weight': np.zeros((1000, 2048), np.float32)}
  for change in (
    {'fc.bias': np.zeros(1000, np.float32)},  # classes of the model zoos
    {'fc.weight': np.zeros((1008, 512), np.float32)},
    {'Mixed_7c.branch1x1.conv.weight': np.zeros((320, 9, 1, 1), np.float32)},
  ):
    files.write_arrays(path, arrays | change)
    with pytest.raises(UserError, match=r'other\.pth holds another network'):
      inception.load(path)
  files.write_arrays(path, {'fc.weight': arrays['fc.weight']})
  with pytest.raises(UserError, match=r'other\.pth holds another network'):
    inception.load(path)


@pytest.fixture(scope='module')
def certified(weights_file, tmp_path_factory):
  """Compares with torch-fidelity's network, saved in the official format."""
  try:
    fidelity.import_torch_fidelity()
  except ImportError as error:
    pytest.skip(f"skipped: {error}: pip install -e '.[certify]'")
  import torch
  from torch_fidelity.feature_extractor_inceptionv3 import (
    FeatureExtractorInceptionV3,
  )

  network = FeatureExtractorInceptionV3(
    'reference',
    list(ALL_OUTPUTS),
    feature_extractor_weights_path=str(weights_file),
  )
  path = tmp_path_factory.mktemp('certified') / 'saved.pth'
  torch.save(network.state_dict(), path, _use_new_zipfile_serialization=False)
  weights = inception.load(path).weights

  def agree(images):
    """The largest difference is below 1e-5 of the largest value."""
    ours = features(weights, images, ALL_OUTPUTS)
    channels_first = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    theirs = zip(ALL_OUTPUTS, network(channels_first), strict=True)
    differences = {
      name: float(np.abs(ours[name] - x.numpy()).max() / x.abs().max())
      for name, x in theirs
    }
    print(images.shape, {name: f'{x:.1e}' for name, x in differences.items()})
    assert all(x < 1e-5 for x in differences.values()), differences

  return agree


@pytest.mark.certify
@pytest.mark.parametrize('size', [28, 32, 64, 299, 401])
def test_random_images_agree_with_torch_fidelity(certified, size):
  rng = np.random.default_rng(size)
  images = rng.integers(0, 256, (2, size, size, 3), np.uint8)
  certified(images)


@pytest.mark.certify
def test_genuine_digits_agree_with_torch_fidelity(certified, shared):
  with gzip.open(shared / 'mnist' / 't10k-images-idx3-ubyte.gz') as file:
    digits = np.frombuffer(file.read(16 + 4 * 784)[16:], np.uint8)
  grey = digits.reshape(4, 28, 28, 1)
  certified(np.repeat(grey, 3, axis=-1))


@pytest.mark.certify
def test_genuine_photographs_agree_with_torch_fidelity(certified, shared):
  images = []
  with tarfile.open(shared / 'cifar10_jpg.tar.xz') as archive:
    for member in archive:
      if member.name.endswith('.jpg'):
        content = archive.extractfile(member).read()
        images.append(np.asarray(Image.open(io.BytesIO(content))))
      if len(images) == 4:
        break
  certified(np.stack(images))
