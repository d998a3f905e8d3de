"""The Inception-v3 of 2015, by whose features FID is measured.

Szegedy et al. 2016, as Google trained it ('2015-12-05') and as the original
FID used it (Heusel et al. 2017): another network than the Inception-v3 of the
model zoos, whose scores cannot be compared. The weights are those that
pytorch-fid and torch-fidelity converted from TensorFlow's; layers are called
as there.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PyTree, UInt8

from gan_jax.errors import UserError
from gan_jax.files import cache_folder
from gan_jax.metrics import torch_weights
from gan_jax.ops.window import LAYOUT
from gan_jax.registry import choose

NAME = 'weights-inception-2015-12-05-6726825d.pth'
URL = (
  f'https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{NAME}'
)
SHA256 = '6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2'
VARIABLE = 'GAN_JAX_INCEPTION'

# What it returns, and how wide that is. The first three are means over the
# image of what lies after a max-pool, a max-pool, and Mixed_6e.
WIDTHS = {
  '64': 64,
  '192': 192,
  '768': 768,
  '2048': 2048,
  'logits_unbiased': 1008,
  'logits': 1008,
}
SIZE = 299
BATCH_NORM_EPSILON = 1e-3

# (x, names of layers) -> x after these layers of a block.
Block = Callable[..., Array]


class Inception(NamedTuple):
  """The network, as read from a file.

  Attributes:
    weights: For `features`: NumPy arrays, to be put on the devices.
    sha256: Of the file; scores by other weights are other scores.
  """

  weights: PyTree
  sha256: str


def is_available() -> bool:
  """Whether `load()` finds a file."""
  return any(path.is_file() for path in _places())


def load(path: str | Path | None = None) -> Inception:
  """Reads the weights, from where they are kept if `path` is None.

  They are looked for where GAN_JAX_INCEPTION says; without it, in
  ~/.cache/gan_jax, and where torch-fidelity downloads them to. A file that
  was named, by `path` or the variable, may hold other weights of the network.

  Raises:
    UserError: There is none, or it is not the official one, or damaged.
  """
  places = [Path(path)] if path else _places()
  named = bool(path or os.environ.get(VARIABLE))
  found = next((place for place in places if place.is_file()), None)
  if found is None:
    raise UserError(
      f'no weights of Inception ({" or ".join(map(str, places))}): '
      f'{where_to_get()}'
    )
  with found.open('rb') as file:
    sha256 = hashlib.file_digest(file, 'sha256').hexdigest()
  if not named and sha256 != SHA256:
    raise UserError(
      f'{found} is damaged: its SHA-256 is {sha256[:8]}..., the official one '
      f'{SHA256[:8]}...: get it again from {URL}, or name other weights by '
      f'{VARIABLE}=FILE'
    )
  return Inception(_checked(found), sha256)


def where_to_get() -> str:
  """Tells how a user comes by the weights, in words."""
  return (
    f'get {NAME} (SHA-256 {SHA256[:8]}...) from {URL} into {cache_folder()}, '
    f'or name it by {VARIABLE}=FILE'
  )


def _places() -> list[Path]:
  if os.environ.get(VARIABLE):
    return [Path(os.environ[VARIABLE])]
  of_torch = cache_folder().parent / 'torch' / 'hub' / 'checkpoints'
  return [cache_folder() / NAME, of_torch / NAME]


def _checked(path: Path) -> PyTree:
  """The file's weights, refused if the network cannot be played with them."""
  image = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), np.uint8)
  try:
    weights = fold(torch_weights.read(path))
    made = jax.eval_shape(
      lambda image: features(weights, image, tuple(WIDTHS)), image
    )
  except UserError:
    raise
  except (KeyError, TypeError, ValueError) as error:
    raise UserError(
      f'{path} holds another network ({type(error).__name__}): expected the '
      f'weights of {NAME}'
    ) from error
  for name, width in WIDTHS.items():
    if made[name].shape != (1, width):
      raise UserError(
        f'{path} holds another network, with {made[name].shape[1]} {name}, '
        f'not {width}: expected the weights of {NAME}'
      )
  return weights


def fold(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
  """PyTorch's arrays -> kernel and bias of each layer, for `features`.

  BatchNorm with fixed statistics is a scale, which the kernel takes up, and a
  shift: gain (x - mean) / sqrt(variance + 0.001) + bias. Kernels become HWIO.
  """
  weights = {
    'fc': {
      'kernel': arrays['fc.weight'].T.astype(np.float32),
      'bias': arrays['fc.bias'].astype(np.float32),
    }
  }
  for name, kernel in arrays.items():
    if not name.endswith('.conv.weight'):
      continue
    layer = name.removesuffix('.conv.weight')
    gain, bias, mean, variance = (
      arrays[f'{layer}.bn.{part}'].astype(np.float64)
      for part in ('weight', 'bias', 'running_mean', 'running_var')
    )
    scale = gain / np.sqrt(variance + BATCH_NORM_EPSILON)
    weights[layer] = {
      'kernel': (kernel.transpose(2, 3, 1, 0) * scale).astype(np.float32),
      'bias': (bias - mean * scale).astype(np.float32),
    }
  return weights


def features(
  weights: PyTree,
  images: UInt8[Array, 'n h w c'] | UInt8[np.ndarray, 'n h w c'],
  outputs: Sequence[str] = ('2048', 'logits_unbiased'),
) -> dict[str, Float[Array, 'n _']]:
  """What the network makes of the images, under the names of `WIDTHS`.

  A pure function in float32, to be compiled with `outputs` static.

  Args:
    weights: Of `load`.
    images: RGB or grey, of any size.
    outputs: FID and KID are of '2048', the Inception Score of
      'logits_unbiased', the logits without the bias of the last layer.
  """
  if images.shape[-1] not in (1, 3):
    raise UserError(
      f'Inception sees images of 1 or 3 channels, not {images.shape[-1]}'
    )
  x = resize(images.astype(jnp.float32), SIZE)
  x = jnp.repeat(x, 3 // x.shape[-1], axis=-1)
  x = (x - 128) / 128
  made = {}
  stem = _block(weights)
  x = stem(x, 'Conv2d_1a_3x3', stride=2)
  x = stem(x, 'Conv2d_2a_3x3', padding='VALID')
  x = _halved(stem(x, 'Conv2d_2b_3x3'))
  made['64'] = _mean(x)
  x = stem(x, 'Conv2d_3b_1x1')
  x = _halved(stem(x, 'Conv2d_4a_3x3', padding='VALID'))
  made['192'] = _mean(x)
  for name in ('Mixed_5b', 'Mixed_5c', 'Mixed_5d'):
    x = _mixed_a(_block(weights, name), x)
  x = _mixed_b(_block(weights, 'Mixed_6a'), x)
  for name in ('Mixed_6b', 'Mixed_6c', 'Mixed_6d', 'Mixed_6e'):
    x = _mixed_c(_block(weights, name), x)
  made['768'] = _mean(x)
  x = _mixed_d(_block(weights, 'Mixed_7a'), x)
  x = _mixed_e(_block(weights, 'Mixed_7b'), x, average)
  # A slip of 2015, by which every FID has been measured since.
  x = _mixed_e(_block(weights, 'Mixed_7c'), x, _largest)
  made['2048'] = _mean(x)
  last = weights['fc']
  logits = jnp.matmul(made['2048'], last['kernel'], precision='highest')
  made['logits_unbiased'] = logits
  made['logits'] = logits + last['bias'][None]
  return {name: choose('output of Inception', name, made) for name in outputs}


def resize(x: Float[Array, 'n h w c'], size: int) -> Float[Array, 'n s s c']:
  """Bilinear, as TensorFlow 1 did: pixel i is taken from i * (before / size).

  So the corners are not aligned, nor are the pixels' centres, and nothing is
  smoothed before it is made smaller. Rounded as there, too.
  """
  for axis in (2, 1):
    before = x.shape[axis]
    at = np.arange(size, dtype=np.float32) * np.float32(before / size)
    low = at.astype(np.int32)
    high = np.minimum(low + 1, before - 1)
    share = np.expand_dims(at - low.astype(np.float32), (0, 3, 3 - axis))
    first, second = (jnp.take(x, i, axis, mode='clip') for i in (low, high))
    x = first + (second - first) * share
  return x


def average(x: Float[Array, 'n h w c']) -> Float[Array, 'n h w c']:
  """Means of 3x3 pixels; at the border, of those that there are."""
  return nn.avg_pool(x, (3, 3), (1, 1), 'SAME', count_include_pad=False)


def _largest(x: Float[Array, 'n h w c']) -> Float[Array, 'n h w c']:
  return nn.max_pool(x, (3, 3), (1, 1), 'SAME')


def _halved(x: Float[Array, 'n H W c']) -> Float[Array, 'n h w c']:
  return nn.max_pool(x, (3, 3), (2, 2), 'VALID')


def _mean(x: Float[Array, 'n h w c']) -> Float[Array, 'n c']:
  return jnp.mean(x, (1, 2))


def _join(*branches: Float[Array, 'n h w _']) -> Float[Array, 'n h w c']:
  return jnp.concatenate(branches, axis=-1)


def _block(weights: PyTree, name: str = '') -> Block:
  """The layers of a block: convolution, shift, ReLU, one after another.

  A stride is the last one's; what is strided is not padded.
  """

  def through(x, *layers, stride=1, padding='SAME'):
    *before, last = layers
    for layer in before:
      x = through(x, layer)
    w = weights[f'{name}.{last}' if name else last]
    y = lax.conv_general_dilated(
      x,
      w['kernel'],
      (stride, stride),
      padding if stride == 1 else 'VALID',
      dimension_numbers=LAYOUT,
      precision='highest',  # elsewhere TF32 or bfloat16 would move the score
    )
    return nn.relu(y + w['bias'][None, None, None])

  return through


def _mixed_a(block: Block, x: Array) -> Array:
  """35x35."""
  return _join(
    block(x, 'branch1x1'),
    block(x, 'branch5x5_1', 'branch5x5_2'),
    block(x, 'branch3x3dbl_1', 'branch3x3dbl_2', 'branch3x3dbl_3'),
    block(average(x), 'branch_pool'),
  )


def _mixed_b(block: Block, x: Array) -> Array:
  """35x35 -> 17x17."""
  double = 'branch3x3dbl_1', 'branch3x3dbl_2', 'branch3x3dbl_3'
  return _join(
    block(x, 'branch3x3', stride=2), block(x, *double, stride=2), _halved(x)
  )


def _mixed_c(block: Block, x: Array) -> Array:
  """17x17, with convolutions of 1x7 and 7x1."""
  return _join(
    block(x, 'branch1x1'),
    block(x, 'branch7x7_1', 'branch7x7_2', 'branch7x7_3'),
    block(x, *(f'branch7x7dbl_{i}' for i in range(1, 6))),
    block(average(x), 'branch_pool'),
  )


def _mixed_d(block: Block, x: Array) -> Array:
  """17x17 -> 8x8."""
  return _join(
    block(x, 'branch3x3_1', 'branch3x3_2', stride=2),
    block(x, *(f'branch7x7x3_{i}' for i in range(1, 5)), stride=2),
    _halved(x),
  )


def _mixed_e(block: Block, x: Array, pool: Callable[[Array], Array]) -> Array:
  """8x8, with convolutions of 1x3 and 3x1 side by side."""
  single = block(x, 'branch3x3_1')
  double = block(x, 'branch3x3dbl_1', 'branch3x3dbl_2')
  return _join(
    block(x, 'branch1x1'),
    block(single, 'branch3x3_2a'),
    block(single, 'branch3x3_2b'),
    block(double, 'branch3x3dbl_3a'),
    block(double, 'branch3x3dbl_3b'),
    block(pool(x), 'branch_pool'),
  )
