"""Tests of frozen feature networks: VGG-19 and our classifier."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.errors import UserError
from gan_jax.models import perceptual

# conv5_4 before its ReLU of a VGG-19 with the widths below, run once in float64
# with PyTorch 2 (conv2d, relu, max_pool2d, ImageNet's means and deviations).
# RandomState(0) draws the images, uniform in [-1, 1], and for each convolution
# 1.4 randn / sqrt(inputs) and randn / 10, all in PyTorch's layout.
WIDTHS = ((2, 2), (3, 3), (4,) * 4, (3,) * 4, (2,) * 4)
GOLDEN = [
  -0.209243184, 0.067502396, -0.001742183, -0.220959877, -0.178618342,
  -0.034960499, -0.043526685, 0.029506032, -0.153427224, 0.053452209,
  -0.033300154, -0.168262403, -0.151112853, -0.047249202, 0.006627983,
  0.007712378,
]  # fmt: skip


def test_vgg19_equals_pytorch(monkeypatch):
  rng, arrays, channels = np.random.RandomState(0), {}, 3
  images = rng.uniform(-1, 1, (2, 3, 32, 32)).transpose(0, 2, 3, 1)
  for block, widths in zip(perceptual.VGG19_BLOCKS, WIDTHS, strict=True):
    for index, width in zip(block, widths, strict=True):
      kernel = rng.randn(width, channels, 3, 3) / np.sqrt(9 * channels) * 1.4
      arrays[f'features.{index}.weight'] = kernel
      arrays[f'features.{index}.bias'] = 0.1 * rng.randn(width)
      channels = width
  read = lambda path: arrays
  monkeypatch.setattr(perceptual.torch_weights, 'read', read)
  network = perceptual.make('vgg19:somewhere.pth')
  features = jax.jit(network.extract)(network.load(), jnp.float32(images))
  assert features.shape == (2, 2, 2, 2)
  features = np.asarray(features).transpose(0, 3, 1, 2).ravel()
  np.testing.assert_allclose(features, GOLDEN, atol=1e-5)
  del arrays['features.34.bias']
  with pytest.raises(UserError, match=r'has no features\.34\.weight'):
    network.load()


def test_cifar10_features_take_images_of_any_size():
  network = perceptual.make('cifar10')
  images = jax.random.uniform(jax.random.key(0), (2, 24, 40, 1))
  features = network.extract(network.load(), images)
  assert features.shape == (2, 6, 10, 96)
  assert features.min() < 0  # before the ReLU
  assert abs(features[0] - features[1]).mean() > 0.01


@pytest.mark.parametrize(
  'name, message',
  [
    ('vgg18', "did you mean 'vgg19'"),
    ('vgg19', 'needs the file of its weights'),
    ('cifar10:x', 'takes no path'),
  ],
)
def test_invalid_network_names_raise(name, message):
  with pytest.raises(UserError, match=message):
    perceptual.make(name)


def test_missing_weights_raise():
  with pytest.raises(UserError, match='there is no file /nowhere'):
    perceptual.make('vgg19:/nowhere.pth').load()
