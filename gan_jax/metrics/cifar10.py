"""A classifier of CIFAR-10, for class probabilities and features.

A small convolutional network, trained on the 50,000 training images. Its
weights lie beside this file, so that images like those of CIFAR-10 can be
evaluated without the weights of Inception. To train them again, on a GPU, from
a folder with a sub-folder for each class, run

  python -m gan_jax.metrics.cifar10 FILE.npz folder:PATH
"""

import sys

from jaxtyping import PyTree

from gan_jax.data.folder import folder
from gan_jax.data.loader import fetch_all
from gan_jax.data.source import DataSpec
from gan_jax.models import classifier
from gan_jax.models.perceptual import CIFAR10 as CLASSIFIER

load, extract = CLASSIFIER.load, CLASSIFIER.extract


def train(path: str) -> PyTree:
  """Trains the network on a folder of images."""
  size, channels = CLASSIFIER.size, CLASSIFIER.channels
  data = fetch_all(folder(DataSpec(path, size, channels)))
  return classifier.train(
    CLASSIFIER.network, CLASSIFIER.create(), data['images'], data['labels'],
    epochs=60, batch=125, learning_rate=1e-3, shift=4, flip=True,
  )  # fmt: skip


if __name__ == '__main__':
  classifier.save(sys.argv[1], train(sys.argv[2].removeprefix('folder:')))
