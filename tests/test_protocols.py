"""Tests of protocols of other codebases, and of standing statistics.

TORCH was computed with torch.nn.functional.interpolate (mode='bilinear',
align_corners=False) of PyTorch 2, in float32.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from runs import get_config

import gan_jax
from gan_jax import data, games
from gan_jax.errors import UserError
from gan_jax.keys import Purpose, example_keys
from gan_jax.metrics import features, inception
from gan_jax.metrics.protocols import PROTOCOLS, with_protocol
from gan_jax.metrics.scores import comparison_digest
from gan_jax.metrics.standing import make_standing_fn
from gan_jax.ops.bicubic import pillow_resize
from gan_jax.training.evaluations import make_evaluators, of_ema
from gan_jax.training.overrides import settle
from gan_jax.training.schedule import make_schedule


@pytest.mark.parametrize('height, width', [(32, 20), (299, 299), (400, 310)])
def test_resize_clean_equals_pillow(height, width):
  """clean-fid: each channel by Pillow in mode F, clipped, not rounded."""
  images = np.random.RandomState(0).randint(0, 256, (1, height, width, 2))
  found = pillow_resize(jnp.asarray(images, jnp.float32), 299)
  for channel in range(2):
    image = Image.fromarray(images[0, :, :, channel].astype(np.float32))
    resized = image.resize((299, 299), resample=Image.BICUBIC)
    expected = np.asarray(resized).clip(0, 255)
    np.testing.assert_allclose(found[0, :, :, channel], expected, atol=1e-3)


TORCH = {
  32: [
    172.0, 196.40468, 56.212387, 168.39302, 101.08692, 43.404678, 32.524796,
    176.83813, 80.921432, 106.43744, 70.585281, 93.980133, 136.12576, 116.8515,
    163.61052, 26.498291, 83.994461, 136.30011, 135.69484, 103.88827,
    109.47819, 65.916534, 114.86787, 91.673943, 161.69711,
  ],
  400: [
    158.87354, 111.05194, 70.411179, 107.51414, 146.09964, 91.075874, 136.7561,
    87.438042, 162.59496, 99.375435, 112.74755, 125.86015, 121.37871,
    174.83217, 138.54306, 147.81261, 132.88739, 36.418667, 113.46289,
    50.045322, 92.413147, 81.744728, 68.439781, 64.446365, 176.62729,
  ],
}  # fmt: skip


@pytest.mark.parametrize('size', TORCH)
def test_resize_torch_equals_pytorch(size):
  images = np.random.RandomState(0).randint(0, 256, (1, size, size, 1))
  found = inception.resize_torch(jnp.asarray(images, jnp.float32), 299)
  pixels = np.asarray(found)[0, ::60, ::60, 0].reshape(-1)
  np.testing.assert_allclose(pixels, TORCH[size], atol=1e-3)


def test_preparations_scale_pixels_as_the_references():
  """(x - 128) / 128 in TensorFlow's and clean-fid's code, x / 127.5 - 1 in
  PyTorch's.
  """
  white = jnp.full((1, 8, 8, 3), 255.0)
  means = {
    name: float(prepare(white).mean())
    for name, prepare in inception.PREPARATIONS.items()
  }
  expected = {'clean': 127 / 128, 'tensorflow': 127 / 128, 'torch': 1.0}
  assert means == pytest.approx(expected, abs=1e-6)


def test_every_protocol_has_its_features():
  assert {row.features for row in PROTOCOLS.values()} <= set(features.FEATURES)


def block_of(name):
  config = get_config('projection_cifar10')
  config.evaluation.protocol = name
  return config.evaluation


@pytest.mark.parametrize(
  'name, size, expected',
  [
    ('stylegan', 70_000, ('inception', 50_000, 1, 'data')),
    ('studiogan', 70_000, ('inception_torch', 70_000, 1, 'uniform')),
    ('studiogan', 1_281_167, ('inception_torch', 50_000, 1, 'uniform')),
    ('mimicry', 202_599, ('inception', 50_000, 3, 'uniform')),
    ('clean-fid', 10_000, ('inception_clean', 50_000, 1, 'uniform')),
  ],
)
def test_protocol_sets_the_published_settings(name, size, expected):
  block = with_protocol(block_of(name), size, classes=10)
  found = (block.features, block.num_samples, block.seeds, block.labels)
  assert found == expected
  assert with_protocol(block_of(name), size, classes=0).labels is None


def test_settings_without_a_protocol_are_unchanged():
  block = block_of(None)
  assert with_protocol(block, 10, 10) is block


def test_conflicting_settings_raise():
  config = get_config('vanilla_mnist')
  config.evaluation.protocol = 'stylegan'
  settle(config, {'evaluation.protocol', 'evaluation.metrics'})
  with pytest.raises(UserError, match=r'num_samples conflicts .*50000: remove'):
    settle(config, {'evaluation.protocol', 'evaluation.num_samples'})
  config.evaluation.protocol = 'style'
  with pytest.raises(UserError, match="'style'; did you mean 'stylegan'"):
    settle(config, {'evaluation.protocol'})
  images = np.zeros((4, 8, 8, 3), np.uint8)
  with pytest.raises(UserError, match='seeds conflicts'):
    gan_jax.evaluate(images, images, protocol='mimicry', seeds=2)


def test_standing_statistics_are_means_over_batches():
  """With the statistics of one batch, G in evaluation mode gives the samples of
  training mode for this batch.
  """
  config = get_config('dcgan_celeba', 'tiny')
  game = games.make(config)
  batch = {'images': jnp.zeros((4, 16, 16, 3))}
  gen_vars = game.init(jax.random.key(1), batch)[0].gen
  phase = make_schedule(config).phase(0)
  key = jax.random.key(0)
  n = 8

  def inputs_of(first):
    examples = jnp.arange(first, first + n)
    keys = example_keys(key, Purpose.STANDING, examples)
    return game.sample_inputs(keys, {}, phase)

  sample = game.outputs['images'].sample
  stats = []
  for first in (0, n):
    one = make_standing_fn(game, 1, n)(gen_vars, phase) if not first else None
    fakes, new = game.generate(gen_vars, inputs_of(first), phase)
    # Flax keeps 0.9 of the old statistics.
    old = gen_vars['batch_stats']
    part = lambda o, x: (x - 0.9 * o) / 0.1
    stats.append(jax.tree.map(part, old, new['batch_stats']))
    if one is not None:
      again = sample(one, inputs_of(first), phase)
      np.testing.assert_allclose(again, fakes, rtol=1e-3, atol=1e-4)
  two = make_standing_fn(game, 2, n)(gen_vars, phase)['batch_stats']
  mean = jax.tree.map(lambda a, b: (a + b) / 2, *stats)
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
  jax.tree.map(close, two, mean)


def test_standing_statistics_need_batch_norm():
  config = get_config('vanilla_mnist', 'tiny')
  game = games.make(config)
  phase = make_schedule(config).phase(0)
  with pytest.raises(UserError, match='needs a generator with BatchNorm'):
    make_standing_fn(game, 1, 8)({'params': {}}, phase)


def test_standing_statistics_are_in_the_protocol():
  """A resumed run recognizes only scores with its own number of batches."""
  config = get_config('vanilla_mnist', 'tiny')
  config.evaluation.update({'metrics': ('fid',), 'features': 'pixels'})
  config.evaluation.standing_batches = 2
  (evaluator,) = make_evaluators(config, data.make(config))

  def digest(batches):
    values = {'fid': {'fid': [1.0]}}
    (score,) = evaluator.list_scores(values, of_ema(None, None, batches))
    return comparison_digest(score.protocol)

  assert digest(2) == evaluator.comparison_digest
  assert digest(3) != evaluator.comparison_digest != digest(None)
