"""Metrics of conditional samples: do they show the requested class?"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.initializers import he_normal
from jaxtyping import Array, Float, Int32, Integer, PyTree, Shaped, UInt8

from gan_jax import ops
from gan_jax.errors import UserError
from gan_jax.metrics.frechet import fid
from gan_jax.metrics.moments import moments
from gan_jax.models import classifier

# Training of the classifier of `classification_accuracy`: batches of 100.
STEPS = 1500


def check_labels(
  labels: Shaped[np.ndarray, 'n ...'] | None,
  classes: int = 0,
  predicted: int | None = None,
) -> None:
  """Raises UserError if metrics of labels do not suit the data.

  Args:
    labels: Labels of the data; None: it has none.
    classes: The number of classes of the data.
    predicted: That of the classifier for `label_accuracy`; None: not needed.
  """
  if labels is None or labels.ndim != 1:
    raise UserError(
      'config.evaluation.metrics: metrics of labels need data with one label '
      'per image: remove them, or choose labelled data'
    )
  if predicted not in (None, classes):
    raise UserError(
      'config.evaluation.metrics: label_accuracy needs a classifier of the '
      f'{classes} classes of the data, and this one has {predicted}: set '
      'config.evaluation.features to one, such as digits or cifar10'
    )


def check_conditional(labels: Any) -> None:
  """Raises UserError if G has no labels, which metrics of labels need."""
  if labels is None:
    raise UserError(
      'config.evaluation.metrics: metrics of labels need a conditional '
      'generator: remove them, or set config.data.classes'
    )


def requested_labels(inputs: PyTree) -> Int32[Array, ' n']:
  """Returns the labels among the inputs of a conditional G."""
  labels = inputs.get('labels') if isinstance(inputs, dict) else None
  check_conditional(labels)
  return (labels.argmax(-1) if labels.ndim > 1 else labels).astype(jnp.int32)


class ClassFids(NamedTuple):
  """The FID of each class, and their mean and maximum."""

  mean: float
  worst: float
  classes: dict[int, float]


def label_accuracy(
  probabilities: Float[np.ndarray, 'n classes'],
  labels: Integer[np.ndarray, ' n'],
) -> float:
  """Computes the share of samples that a classifier assigns to their label.

  Args:
    probabilities: p(class | sample) by a classifier of the same classes.
    labels: The labels that the samples were generated for.
  """
  return float(np.mean(probabilities.argmax(1) == labels))


def fid_per_class(
  real: Float[np.ndarray, 'n d'],
  real_labels: Integer[np.ndarray, ' n'],
  fake: Float[np.ndarray, 'm d'],
  fake_labels: Integer[np.ndarray, ' m'],
) -> ClassFids:
  """Computes the FID between the reals and the fakes of each class.

  FID falls with the number of samples, so these values are higher than the FID
  of all classes together. Classes without fakes, which were not requested,
  are left out.

  Args:
    real, fake: Features.
    real_labels: The labels of the data.
    fake_labels: The labels that the fakes were generated for.

  Raises:
    UserError: A class has fewer than two reals or two fakes.
  """
  found = {}
  for label in np.unique(fake_labels):
    sets = real[real_labels == label], fake[fake_labels == label]
    if min(map(len, sets)) < 2:
      raise UserError(
        f'fid_per_class: class {label} has {len(sets[0])} reals and '
        f'{len(sets[1])} fakes, and needs two: raise '
        'config.evaluation.num_samples'
      )
    found[int(label)] = fid(*map(moments, sets))
  values = list(found.values())
  return ClassFids(float(np.mean(values)), max(values), found)


class Network(nn.Module):
  """Three strided convolutions and the spatial mean: images of any size.

  Attributes:
    classes: The number of classes.
  """

  classes: int

  @nn.compact
  def __call__(
    self, x: Float[Array, 'n h w c']
  ) -> tuple[Float[Array, 'n 128'], Float[Array, 'n classes']]:
    """Returns the features and the logits of images in [-1, 1]."""
    for layer, width in enumerate((32, 64, 128)):
      shape = 3, 3, x.shape[-1], width
      kernel = self.param(f'kernel_{layer}', he_normal(), shape)
      bias = self.param(f'bias_{layer}', nn.initializers.zeros, (width,))
      x = nn.relu(ops.conv(x, kernel, 2, 1) + bias[None, None, None])
    x = x.mean((1, 2))
    return x, nn.Dense(self.classes)(x)


def classification_accuracy(
  images: UInt8[np.ndarray, 'n h w c'],
  labels: Int32[np.ndarray, ' n'],
  test_images: UInt8[np.ndarray, 'm h w c'],
  test_labels: Int32[np.ndarray, ' m'],
) -> float:
  """Computes the accuracy on real images of a classifier trained on fakes.

  It is the classification accuracy score (CAS) of Ravuri & Vinyals 2019, with
  top-1 accuracy, and a small network in place of ResNet-50. It is sensitive to
  missing modes within a class, which `label_accuracy` is not.

  Args:
    images, labels: The fakes, and the labels that they were generated for.
    test_images, test_labels: Real images that G has not seen.
  """
  network = Network(int(max(labels.max(), test_labels.max())) + 1)
  batch = min(100, len(images))
  params = network.init(jax.random.key(0), jnp.zeros((1, *images.shape[1:])))
  epochs = max(1, STEPS * batch // len(images))
  params = classifier.train(
    network, params, images, labels,
    epochs=epochs, batch=batch, learning_rate=2e-3,
    shift=images.shape[1] // 16, flip=False,
  )  # fmt: skip
  apply = jax.jit(lambda x: network.apply(params, x)[1].argmax(-1))
  found = [
    np.asarray(apply(part.astype(np.float32) / 127.5 - 1))
    for part in np.array_split(test_images, -(-len(test_images) // 500))
  ]
  return float(np.mean(np.concatenate(found) == test_labels))
