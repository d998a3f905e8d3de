"""A classifier of CIFAR-10, for class probabilities and features.

A small convolutional network, trained on the 50,000 training images. Its
weights lie beside this file, so that images like those of CIFAR-10 can be
evaluated without the weights of Inception. To train them again, on a GPU, from
a folder with a sub-folder for each class, run

  python -m gan_jax.metrics.cifar10 FILE.npz folder:PATH
"""

import sys
from pathlib import Path

import flax.linen as nn
from flax.linen.initializers import he_normal, zeros
from jaxtyping import Array, Float, PyTree

from gan_jax import ops
from gan_jax.data.folder import folder
from gan_jax.data.loader import fetch_all
from gan_jax.data.source import DataSpec
from gan_jax.metrics import classifier

SIZE = 32


class Network(nn.Module):
  """Six convolutions, every second one strided; 128 features, spatial means."""

  @nn.compact
  def __call__(
    self, x: Float[Array, 'n 32 32 3']
  ) -> tuple[Float[Array, 'n 128'], Float[Array, 'n 10']]:
    """Returns the features and the logits of images in [-1, 1]."""
    for layer, width in enumerate((48, 64, 96, 96, 128, 128)):
      shape = 3, 3, x.shape[-1], width
      kernel = self.param(f'kernel_{layer}', he_normal(), shape)
      bias = self.param(f'bias_{layer}', zeros, (1, 1, 1, width))
      x = nn.relu(ops.conv(x, kernel, 1 + layer % 2, 1) + bias)
    x = x.mean((1, 2))
    return x, nn.Dense(10)(x)


CLASSIFIER = classifier.Classifier(
  Network(), SIZE, 3, Path(__file__).with_suffix('.npz')
)
load, extract = CLASSIFIER.load, CLASSIFIER.extract


def train(path: str) -> PyTree:
  """Trains the network on a folder of images."""
  data = fetch_all(folder(DataSpec(path=path, resolution=SIZE, channels=3)))
  return classifier.train(
    CLASSIFIER.network, CLASSIFIER.create(), data['images'], data['labels'],
    epochs=60, batch=125, learning_rate=1e-3, shift=4, flip=True,
  )  # fmt: skip


if __name__ == '__main__':
  classifier.save(sys.argv[1], train(sys.argv[2].removeprefix('folder:')))
