"""A classifier of digits, for class probabilities and features.

A small convolutional network, trained on the 5,000 embedded digits in 30
seconds. Its weights lie beside this file, because two machines do not train
identical ones, and scores by different weights are not comparable. To train
them again, run

  python -m gan_jax.metrics.digits FILE.npz
"""

import sys
from pathlib import Path

import flax.linen as nn
from flax.linen.initializers import he_normal, zeros
from jaxtyping import Array, Float, PyTree

from gan_jax import ops
from gan_jax.data.digits import digits
from gan_jax.data.loader import fetch_all
from gan_jax.data.source import DataSpec
from gan_jax.models import classifier

SIZE = 28


class Network(nn.Module):
  """Three strided convolutions, 28 to 14, 7 and 4 pixels; 128 features."""

  @nn.compact
  def __call__(
    self, x: Float[Array, 'n 28 28 1']
  ) -> tuple[Float[Array, 'n 128'], Float[Array, 'n 10']]:
    """Returns the features and the logits of images in [-1, 1]."""
    for layer, width in enumerate((32, 64, 64)):
      shape = 3, 3, x.shape[-1], width
      kernel = self.param(f'kernel_{layer}', he_normal(), shape)
      bias = self.param(f'bias_{layer}', zeros, (1, 1, 1, width))
      x = nn.relu(ops.conv(x, kernel, 2, 1) + bias)
    x = nn.relu(nn.Dense(128)(x.reshape(len(x), -1)))
    return x, nn.Dense(10)(x)


CLASSIFIER = classifier.Classifier(
  Network(), SIZE, 1, Path(__file__).with_suffix('.npz')
)
load, extract = CLASSIFIER.load, CLASSIFIER.extract


def train() -> PyTree:
  """Trains the network on the embedded digits."""
  data = fetch_all(digits(DataSpec(path='', resolution=SIZE, channels=1)))
  return classifier.train(
    CLASSIFIER.network, CLASSIFIER.create(), data['images'], data['labels'],
    epochs=24, batch=100, learning_rate=2e-3, shift=3, flip=False,
  )  # fmt: skip


if __name__ == '__main__':
  classifier.save(sys.argv[1], train())
