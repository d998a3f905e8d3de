"""Frozen networks whose features compare images: the losses of SRGAN.

Johnson et al. 2016, section 3.2. A network is (load, extract): its weights are
an argument, so that they are never trained or checkpointed.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.initializers import he_normal, zeros
from jaxtyping import Array, Float, PyTree

from gan_jax import ops, torch_weights
from gan_jax.errors import UserError
from gan_jax.models.classifier import Classifier
from gan_jax.registry import choose

Images = Float[Array, 'n h w c']


class FeatureNetwork(NamedTuple):
  """A frozen feature network.

  Attributes:
    load: () -> its weights.
    extract: (weights, images in [-1, 1], grey or RGB) -> features [n, h, w, d].
  """

  load: Callable[[], PyTree]
  extract: Callable[[PyTree, Images], Array]


class Cifar10(nn.Module):
  """A classifier of CIFAR-10: six convolutions, every second one strided.

  128 features, which are spatial means. The features before each ReLU are sown
  into the collection 'intermediates'.
  """

  @nn.compact
  def __call__(
    self, x: Float[Array, 'n h w 3']
  ) -> tuple[Float[Array, 'n 128'], Float[Array, 'n 10']]:
    """Returns the features and the logits of images in [-1, 1]."""
    for layer, width in enumerate((48, 64, 96, 96, 128, 128)):
      shape = 3, 3, x.shape[-1], width
      kernel = self.param(f'kernel_{layer}', he_normal(), shape)
      bias = self.param(f'bias_{layer}', zeros, (1, 1, 1, width))
      x = ops.conv(x, kernel, 1 + layer % 2, 1) + bias
      self.sow('intermediates', f'layer_{layer}', x)
      x = nn.relu(x)
    x = x.mean((1, 2))
    return x, nn.Dense(10)(x)


CIFAR10 = Classifier(
  Cifar10(),
  size=32,
  channels=3,
  weights=Path(__file__).parents[1] / 'metrics' / 'cifar10.npz',
)
# Before its ReLU, as in ESRGAN: 96 channels at a quarter of the size.
CIFAR10_LAYER = 'layer_3'

# VGG-19 up to conv5_4, by Simonyan & Zisserman 2015: the indices of the
# convolutions in torchvision's `features`, each block before a max-pool.
VGG19_BLOCKS = (
  (0, 2),
  (5, 7),
  (10, 12, 14, 16),
  (19, 21, 23, 25),
  (28, 30, 32, 34),
)
# The means and standard deviations of ImageNet's channels, in [0, 1].
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _rgb(images: Images) -> Images:
  return jnp.broadcast_to(images, (*images.shape[:3], 3))


def _cifar10(path: str) -> FeatureNetwork:
  if path:
    raise UserError('config.game.features=cifar10 takes no path: remove it')

  def extract(weights: PyTree, images: Images) -> Array:
    _, sown = CIFAR10.network.apply(
      weights, _rgb(images), mutable=['intermediates']
    )
    return sown['intermediates'][CIFAR10_LAYER][0]

  load = lambda: jax.tree.map(jnp.asarray, CIFAR10.load()[0])
  return FeatureNetwork(load, extract)


def _vgg19(path: str) -> FeatureNetwork:
  if not path:
    raise UserError(
      'config.game.features=vgg19 needs the file of its weights: set '
      '--config.game.features=vgg19:/path/to/vgg19-dcbb9e9d.pth (of '
      'torchvision), or cifar10, which needs no file'
    )
  return FeatureNetwork(partial(load_vgg19, path), vgg19_features)


def load_vgg19(path: str) -> dict[str, Array]:
  """Loads the convolutions of a file of torchvision's VGG-19.

  Raises:
    UserError: The file is missing or damaged, or is of another network.
  """
  arrays = torch_weights.read(Path(path).expanduser())
  loaded = {}
  for index in (index for block in VGG19_BLOCKS for index in block):
    name = f'features.{index}'
    if f'{name}.weight' not in arrays or f'{name}.bias' not in arrays:
      raise UserError(
        f'{path} has no {name}.weight and {name}.bias: expected the weights of '
        "torchvision's VGG-19"
      )
    kernel = np.float32(arrays[f'{name}.weight']).transpose(2, 3, 1, 0)
    loaded[f'kernel_{index}'] = jnp.asarray(kernel)
    loaded[f'bias_{index}'] = jnp.asarray(np.float32(arrays[f'{name}.bias']))
  return loaded


def vgg19_features(weights: Mapping[str, Array], images: Images) -> Array:
  """Returns VGG-19's conv5_4 before its ReLU, of images in [-1, 1].

  Wang et al. 2018 (ESRGAN), section 3.3: 512 channels at a sixteenth of the
  size.
  """
  mean, std = (
    jnp.array(x, images.dtype)[None, None, None] for x in (MEAN, STD)
  )
  x = ((_rgb(images) + 1) / 2 - mean) / std
  for block, indices in enumerate(VGG19_BLOCKS):
    if block:
      x = nn.max_pool(x, (2, 2), (2, 2))
    for index in indices:
      kernel, bias = weights[f'kernel_{index}'], weights[f'bias_{index}']
      x = ops.conv(x, kernel, 1, 1) + bias[None, None, None]
      if index != VGG19_BLOCKS[-1][-1]:
        x = nn.relu(x)
  return x


NETWORKS: dict[str, Callable[[str], FeatureNetwork]] = {
  'cifar10': _cifar10,
  'vgg19': _vgg19,
}


def make(name: str) -> FeatureNetwork:
  """Makes the network of `config.game.features`: NAME or NAME:FILE.

  Raises:
    UserError: The name is unknown, or its file is missing.
  """
  name, _, path = name.partition(':')
  return choose('config.game.features', name, NETWORKS)(path)
