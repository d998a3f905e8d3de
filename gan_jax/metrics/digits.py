"""A classifier of digits: its classes, and the features before them.

A small convolutional network, trained on the 5,000 embedded digits by `train`,
in half a minute. Its weights lie beside this file, since two machines do not
train the same ones to the last bit, and scores by others do not compare.

  python -m gan_jax.metrics.digits FILE.npz

trains them anew.
"""

import hashlib
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.linen.initializers import he_normal, zeros
from jaxtyping import Array, Float, PyTree, UInt8

from gan_jax import ops
from gan_jax.data.digits import digits
from gan_jax.data.source import Wanted

WEIGHTS = Path(__file__).with_suffix('.npz')
SIZE = 28
EPOCHS, BATCH, LEARNING_RATE = 24, 100, 2e-3
# Training images are moved by so many pixels, at most, both ways.
SHIFT = 3


class Classifier(nn.Module):
  """Three strided convolutions, 28 to 14, 7 and 4 pixels; 128 features."""

  @nn.compact
  def __call__(
    self, x: Float[Array, 'n 28 28 1']
  ) -> tuple[Float[Array, 'n 128'], Float[Array, 'n 10']]:
    for layer, width in enumerate((32, 64, 64)):
      shape = 3, 3, x.shape[-1], width
      kernel = self.param(f'kernel_{layer}', he_normal(), shape)
      bias = self.param(f'bias_{layer}', zeros, (1, 1, 1, width))
      x = nn.relu(ops.conv(x, kernel, 2, 1) + bias)
    x = nn.relu(nn.Dense(128)(x.reshape(len(x), -1)))
    return x, nn.Dense(10)(x)


def look(
  params: PyTree, images: UInt8[Array, 'n h w c']
) -> dict[str, Float[Array, 'n d']]:
  """'features' [n, 128] and 'probabilities' [n, 10]; any size, grey or RGB."""
  x = images.astype(jnp.float32).mean(-1, keepdims=True) / 127.5 - 1
  x = jax.image.resize(x, (len(x), SIZE, SIZE, 1), 'linear')
  with jax.default_matmul_precision('highest'):
    features, logits = Classifier().apply(params, x)
  return {'features': features, 'probabilities': nn.softmax(logits)}


def load() -> tuple[PyTree, str]:
  """The weights, and their SHA-256."""
  leaves, structure = jax.tree.flatten(jax.eval_shape(_create))
  sha256 = hashlib.sha256()
  with np.load(WEIGHTS) as file:
    arrays = [file[str(i)] for i in range(len(leaves))]
  for array in arrays:
    sha256.update(array.tobytes())
  return jax.tree.unflatten(structure, arrays), sha256.hexdigest()


def _create() -> PyTree:
  return Classifier().init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 1)))


def train() -> PyTree:
  """Trains it by Adam, with a cosine's learning rate, on shifted images."""
  data = digits(Wanted(path='', resolution=SIZE, channels=1))
  examples = data.fetch(np.arange(data.size))
  images = jnp.asarray(examples['images'], jnp.float32) / 127.5 - 1
  labels = jnp.asarray(examples['labels'])
  rounds = EPOCHS * data.size // BATCH
  tx = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, rounds))

  def loss(params, x, y):
    _, logits = Classifier().apply(params, x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

  def shifted(image, shift):
    border = [(SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)]
    wide = jnp.pad(image, border, constant_values=-1)
    return jax.lax.dynamic_slice(wide, (*shift, 0), image.shape)

  @jax.jit
  def step(carry, drawn):
    params, opt_state = carry
    index, shift = drawn
    x = jax.vmap(shifted)(images[index], shift)
    grads = jax.grad(loss)(params, x, labels[index])
    updates, opt_state = tx.update(grads, opt_state)
    return (optax.apply_updates(params, updates), opt_state), None

  rng = np.random.default_rng(0)
  order = [rng.permutation(data.size) for _ in range(EPOCHS)]
  shifts = rng.integers(0, 2 * SHIFT + 1, (rounds, BATCH, 2))
  params = _create()
  carry = params, tx.init(params)
  for drawn in zip(np.reshape(order, (rounds, BATCH)), shifts, strict=True):
    carry, _ = step(carry, drawn)
  return carry[0]


if __name__ == '__main__':
  trained = map(np.asarray, jax.tree.leaves(train()))
  np.savez_compressed(sys.argv[1], **{str(i): x for i, x in enumerate(trained)})
