"""Small classifiers with weights beside the code: loading, use and training."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int32, Num, PyTree, UInt8


class Classifier(NamedTuple):
  """A small classifier with stored weights.

  Attributes:
    network: (images [n, size, size, channels] in [-1, 1]) -> features, logits.
    size, channels: The shape of the training images.
    weights: A file that `save` wrote.
  """

  network: nn.Module
  size: int
  channels: int
  weights: Path

  def create(self) -> PyTree:
    """Initializes the weights before training."""
    shape = 1, self.size, self.size, self.channels
    return self.network.init(jax.random.key(0), jnp.zeros(shape))

  def load(self) -> tuple[PyTree, str]:
    """Loads the weights, and returns their SHA-256 too."""
    leaves, structure = jax.tree.flatten(jax.eval_shape(self.create))
    sha256 = hashlib.sha256()
    with np.load(self.weights) as opened:
      arrays = [opened[str(i)] for i in range(len(leaves))]
    for array in arrays:
      sha256.update(array.tobytes())
    return jax.tree.unflatten(structure, arrays), sha256.hexdigest()

  def extract(
    self, params: PyTree, images: Num[Array, 'n h w c']
  ) -> dict[str, Float[Array, 'n d']]:
    """Returns 'features' [n, d] and 'probabilities' [n, k].

    Accepts images of any size, grey or RGB: uint8, or floats in [0, 255], with
    which the result is differentiable.
    """
    with jax.default_matmul_precision('highest'):
      x = _to_input(images, self.size, self.channels)
      features, logits = self.network.apply(params, x)
    return {'features': features, 'probabilities': nn.softmax(logits)}


def save(file: str, weights: PyTree) -> None:
  """Writes the weights to a file."""
  leaves = map(np.asarray, jax.tree.leaves(weights))
  np.savez_compressed(file, **{str(i): x for i, x in enumerate(leaves)})


def _to_input(
  images: Num[Array, 'n h w c'], size: int, channels: int
) -> Float[Array, 'n size size channels']:
  """Converts images of any size, grey or RGB, to network inputs in [-1, 1]."""
  x = images.astype(jnp.float32)
  if channels == 1:
    x = x.mean(-1, keepdims=True)
  x = jnp.broadcast_to(x, (*x.shape[:3], channels)) / 127.5 - 1
  return jax.image.resize(x, (len(x), size, size, channels), 'linear')


def train(
  network: nn.Module,
  params: PyTree,
  images: UInt8[np.ndarray, 'n h w c'],
  labels: Int32[np.ndarray, ' n'],
  *,
  epochs: int,
  batch: int,
  learning_rate: float,
  shift: int,
  flip: bool,
) -> PyTree:
  """Trains a classifier with Adam and a cosine schedule, on augmented images.

  Args:
    network: (images [n, h, w, c] in [-1, 1]) -> (features, logits).
    params: The initial parameters.
    images, labels: The training data.
    epochs, batch, learning_rate: The training settings.
    shift: The largest random shift along each axis, in pixels.
    flip: Whether images are mirrored with probability 1/2.
  """
  size = len(images)
  images = jnp.asarray(images, jnp.float32) / 127.5 - 1
  labels = jnp.asarray(labels)
  steps = epochs * size // batch
  tx = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))

  def loss(params, x, y):
    _, logits = network.apply(params, x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

  def augment(image, shifts, flips):
    """Shifts one image, filling the border with -1, and mirrors it."""
    border = [(shift, shift), (shift, shift), (0, 0)]
    wide = jnp.pad(image, border, constant_values=-1)
    image = jax.lax.dynamic_slice(wide, (*shifts, 0), image.shape)
    return jnp.where(flips, image[:, ::-1], image)

  @jax.jit
  def step(carry, drawn, images, labels):
    params, opt_state = carry
    index, shifts, flips = drawn
    x = jax.vmap(augment)(images[index], shifts, flips)
    grads = jax.grad(loss)(params, x, labels[index])
    updates, opt_state = tx.update(grads, opt_state)
    return (optax.apply_updates(params, updates), opt_state), None

  rng = np.random.default_rng(0)
  order = [rng.permutation(size) for _ in range(epochs)]
  shifts = rng.integers(0, 2 * shift + 1, (steps, batch, 2))
  flips = rng.integers(0, 2, (steps, batch)) & flip
  carry = params, tx.init(params)
  order = np.reshape(order, -1)[: steps * batch].reshape(steps, batch)
  for drawn in zip(order, shifts, flips == 1, strict=True):
    carry, _ = step(carry, drawn, images, labels)
  return carry[0]
