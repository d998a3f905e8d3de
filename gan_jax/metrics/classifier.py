"""Small classifiers whose weights lie beside the code: kept, read, trained."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int32, PyTree, UInt8


class Classifier(NamedTuple):
  """One of them.

  Attributes:
    network: (images [n, size, size, channels] in [-1, 1]) -> features, logits.
    size, channels: Of the images that it was trained on.
    weights: The file that `save` wrote.
  """

  network: nn.Module
  size: int
  channels: int
  weights: Path

  def create(self) -> PyTree:
    """Its first weights, before any training."""
    shape = 1, self.size, self.size, self.channels
    return self.network.init(jax.random.key(0), jnp.zeros(shape))

  def load(self) -> tuple[PyTree, str]:
    """The weights, and their SHA-256."""
    leaves, structure = jax.tree.flatten(jax.eval_shape(self.create))
    sha256 = hashlib.sha256()
    with np.load(self.weights) as opened:
      arrays = [opened[str(i)] for i in range(len(leaves))]
    for array in arrays:
      sha256.update(array.tobytes())
    return jax.tree.unflatten(structure, arrays), sha256.hexdigest()

  def extract(
    self, params: PyTree, images: UInt8[Array, 'n h w c']
  ) -> dict[str, Float[Array, 'n d']]:
    """'features' [n, d], 'probabilities' [n, k]; any size, grey or RGB."""
    with jax.default_matmul_precision('highest'):
      x = _resized(images, self.size, self.channels)
      features, logits = self.network.apply(params, x)
    return {'features': features, 'probabilities': nn.softmax(logits)}


def save(file: str, weights: PyTree) -> None:
  """Writes the weights."""
  leaves = map(np.asarray, jax.tree.leaves(weights))
  np.savez_compressed(file, **{str(i): x for i, x in enumerate(leaves)})


def _resized(
  images: UInt8[Array, 'n h w c'], size: int, channels: int
) -> Float[Array, 'n size size channels']:
  """Any size, grey or RGB -> what a classifier was trained on, in [-1, 1]."""
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
  """Trains it by Adam, with a cosine's learning rate, on shifted images.

  Args:
    network: (images [n, h, w, c] in [-1, 1]) -> (features, logits).
    params: Its first ones.
    images, labels: What it learns.
    epochs, batch, learning_rate: How.
    shift: Images are moved by so many pixels, at most, both ways.
    flip: Whether every other one is mirrored, by chance.
  """
  size = len(images)
  images = jnp.asarray(images, jnp.float32) / 127.5 - 1
  labels = jnp.asarray(labels)
  steps = epochs * size // batch
  tx = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))

  def loss(params, x, y):
    _, logits = network.apply(params, x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

  def changed(image, moved, mirrored):
    border = [(shift, shift), (shift, shift), (0, 0)]
    wide = jnp.pad(image, border, constant_values=-1)
    image = jax.lax.dynamic_slice(wide, (*moved, 0), image.shape)
    return jnp.where(mirrored, image[:, ::-1], image)

  @jax.jit
  def step(carry, drawn, images, labels):
    params, opt_state = carry
    index, moved, mirrored = drawn
    x = jax.vmap(changed)(images[index], moved, mirrored)
    grads = jax.grad(loss)(params, x, labels[index])
    updates, opt_state = tx.update(grads, opt_state)
    return (optax.apply_updates(params, updates), opt_state), None

  rng = np.random.default_rng(0)
  order = [rng.permutation(size) for _ in range(epochs)]
  moved = rng.integers(0, 2 * shift + 1, (steps, batch, 2))
  mirrored = rng.integers(0, 2, (steps, batch)) & flip
  carry = params, tx.init(params)
  order = np.reshape(order, -1)[: steps * batch].reshape(steps, batch)
  for drawn in zip(order, moved, mirrored == 1, strict=True):
    carry, _ = step(carry, drawn, images, labels)
  return carry[0]
