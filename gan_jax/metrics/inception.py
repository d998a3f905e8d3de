"""The Inception-v3 network of 2015, whose features FID uses.

Szegedy et al. 2016, as Google trained it ('2015-12-05') and the original FID
used it (Heusel et al. 2017). Other Inception-v3 networks give scores that are
not comparable. The weights are those that pytorch-fid and torch-fidelity
converted from TensorFlow, with the same names of layers.
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
from jaxtyping import Array, Float, Num, PyTree

from gan_jax import torch_weights
from gan_jax.errors import UserError
from gan_jax.metrics.weights_file import WeightsFile
from gan_jax.ops.bicubic import pillow_resize
from gan_jax.ops.window import LAYOUT
from gan_jax.registry import choose

NAME = 'weights-inception-2015-12-05-6726825d.pth'
URL = (
  f'https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{NAME}'
)
SHA256 = '6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2'
VARIABLE = 'GAN_JAX_INCEPTION'
FILE = WeightsFile(
  'Inception',
  VARIABLE,
  (f'gan_jax/{NAME}', f'torch/hub/checkpoints/{NAME}'),
  f'{NAME} (SHA-256 {SHA256[:8]}...) from {URL}',
)

# Output -> its width. The first three outputs are spatial means after the first
# max-pool, after the second one, and after Mixed_6e.
OUTPUT_WIDTHS = {
  '64': 64,
  '192': 192,
  '768': 768,
  '2048': 2048,
  'logits_unbiased': 1008,
  'logits': 1008,
}
SIZE = 299
BATCH_NORM_EPSILON = 1e-3

# (x, names of layers) -> x after those layers of a block.
Block = Callable[..., Array]


class Inception(NamedTuple):
  """The network, loaded from a file.

  Attributes:
    weights: The weights for `features`: NumPy arrays, not yet on the devices.
    sha256: The hash of the file: scores by other weights are not comparable.
  """

  weights: PyTree
  sha256: str


def load(path: str | Path | None = None) -> Inception:
  """Loads the weights from `path`, or from the first file found.

  Without `path`, the file is the one that GAN_JAX_INCEPTION names; without the
  variable, it is searched in ~/.cache/gan_jax and torch-fidelity's cache. A
  file named by `path` or the variable may hold other weights of the network.

  Raises:
    UserError: The file does not exist, is damaged, or is not the official one.
  """
  found = FILE.find(path)
  is_explicit = bool(path or os.environ.get(VARIABLE))
  with found.open('rb') as file:
    sha256 = hashlib.file_digest(file, 'sha256').hexdigest()
  if not is_explicit and sha256 != SHA256:
    raise UserError(
      f'{found} is damaged: its SHA-256 is {sha256[:8]}..., the official one '
      f'{SHA256[:8]}...: download it again from {URL}, or name other weights '
      f'with {VARIABLE}=FILE'
    )
  return Inception(_load_and_check(found), sha256)


def _load_and_check(path: Path) -> PyTree:
  """Loads the weights of a file, and checks that they fit the network."""
  image = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), np.uint8)
  try:
    weights = fold(torch_weights.read(path))
    results = jax.eval_shape(
      lambda image: features(weights, image, tuple(OUTPUT_WIDTHS)), image
    )
  except UserError:
    raise
  except (KeyError, TypeError, ValueError) as error:
    raise UserError(
      f'{path} holds another network ({type(error).__name__}): expected the '
      f'weights of {NAME}'
    ) from error
  for name, width in OUTPUT_WIDTHS.items():
    if results[name].shape != (1, width):
      raise UserError(
        f'{path} holds another network, with {results[name].shape[1]} {name}, '
        f'not {width}: expected the weights of {NAME}'
      )
  return weights


def fold(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
  """Converts PyTorch's arrays to a kernel and a bias for each layer.

  BatchNorm with fixed statistics, gain (x - mean) / sqrt(variance + 0.001) +
  bias, is a scale, which is folded into the kernel, and a shift. The layout of
  the kernels becomes HWIO.
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
  images: Num[Array, 'n h w c'] | Num[np.ndarray, 'n h w c'],
  outputs: Sequence[str] = ('2048', 'logits_unbiased'),
  prepare: str = 'tensorflow',
) -> dict[str, Float[Array, 'n _']]:
  """Computes outputs of the network, by their names in `OUTPUT_WIDTHS`.

  A pure function in float32, to be compiled with static `outputs`.

  Args:
    weights: The weights that `load` returns.
    images: RGB or grey images of any size.
    outputs: FID and KID use '2048'; the Inception Score uses
      'logits_unbiased', the logits without the bias of the last layer.
    prepare: A key of PREPARATIONS.

  Raises:
    UserError: The images do not have 1 or 3 channels, or an output is unknown.
  """
  if images.shape[-1] not in (1, 3):
    raise UserError(
      f'Inception takes images with 1 or 3 channels, not {images.shape[-1]}'
    )
  prepared = choose('preparation', prepare, PREPARATIONS)
  x = prepared(images.astype(jnp.float32))
  x = jnp.repeat(x, 3 // x.shape[-1], axis=-1)
  results = {}
  stem = _block(weights)
  x = stem(x, 'Conv2d_1a_3x3', stride=2)
  x = stem(x, 'Conv2d_2a_3x3', padding='VALID')
  x = _max_pool_half(stem(x, 'Conv2d_2b_3x3'))
  results['64'] = _mean(x)
  x = stem(x, 'Conv2d_3b_1x1')
  x = _max_pool_half(stem(x, 'Conv2d_4a_3x3', padding='VALID'))
  results['192'] = _mean(x)
  for name in ('Mixed_5b', 'Mixed_5c', 'Mixed_5d'):
    x = _mixed_a(_block(weights, name), x)
  x = _mixed_b(_block(weights, 'Mixed_6a'), x)
  for name in ('Mixed_6b', 'Mixed_6c', 'Mixed_6d', 'Mixed_6e'):
    x = _mixed_c(_block(weights, name), x)
  results['768'] = _mean(x)
  x = _mixed_d(_block(weights, 'Mixed_7a'), x)
  x = _mixed_e(_block(weights, 'Mixed_7b'), x, average)
  # Max-pooling here was a mistake in 2015, and every FID since relies on it.
  x = _mixed_e(_block(weights, 'Mixed_7c'), x, _max_pool)
  results['2048'] = _mean(x)
  dense = weights['fc']
  logits = jnp.matmul(results['2048'], dense['kernel'], precision='highest')
  results['logits_unbiased'] = logits
  results['logits'] = logits + dense['bias'][None]
  return {
    name: choose('output of Inception', name, results) for name in outputs
  }


def resize(x: Float[Array, 'n h w c'], size: int) -> Float[Array, 'n s s c']:
  """Resizes bilinearly as TensorFlow 1 did: pixel i comes from i * (old / new).

  Neither the corners nor the centres of the pixels are aligned, and reducing
  does not anti-alias. The rounding is that of TensorFlow 1, too.
  """
  for axis in (2, 1):
    old_size = x.shape[axis]
    at = np.arange(size, dtype=np.float32) * np.float32(old_size / size)
    low = at.astype(np.int32)
    high = np.minimum(low + 1, old_size - 1)
    weight = np.expand_dims(at - low.astype(np.float32), (0, 3, 3 - axis))
    first, second = (jnp.take(x, i, axis, mode='clip') for i in (low, high))
    x = first + (second - first) * weight
  return x


def resize_torch(
  x: Float[Array, 'n h w c'], size: int
) -> Float[Array, 'n s s c']:
  """Resizes bilinearly as PyTorch with align_corners=False.

  The centres of the pixels are aligned; reducing does not anti-alias.
  """
  for axis in (1, 2):
    old_size = x.shape[axis]
    scale = np.float32(old_size / size)
    at = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * scale
    at = np.maximum(at - np.float32(0.5), 0)
    low = np.minimum(at.astype(np.int32), old_size - 1)
    high = np.minimum(low + 1, old_size - 1)
    weight = np.expand_dims(at - low.astype(np.float32), (0, 3, 3 - axis))
    first, second = (jnp.take(x, i, axis, mode='clip') for i in (low, high))
    x = first * (1 - weight) + second * weight
  return x


# Images of 0 to 255 -> the input of the network. `tensorflow` is the original
# FID's, `clean` clean-fid's, and `torch` that of StudioGAN and pytorch-fid.
PREPARATIONS: dict[str, Callable[[Array], Array]] = {
  'clean': lambda x: (pillow_resize(x, SIZE) - 128) / 128,
  'tensorflow': lambda x: (resize(x, SIZE) - 128) / 128,
  'torch': lambda x: resize_torch(x, SIZE) / 127.5 - 1,
}


def average(x: Float[Array, 'n h w c']) -> Float[Array, 'n h w c']:
  """Averages 3x3 pixels; at the border, only the existing ones."""
  return nn.avg_pool(x, (3, 3), (1, 1), 'SAME', count_include_pad=False)


def _max_pool(x: Float[Array, 'n h w c']) -> Float[Array, 'n h w c']:
  return nn.max_pool(x, (3, 3), (1, 1), 'SAME')


def _max_pool_half(x: Float[Array, 'n H W c']) -> Float[Array, 'n h w c']:
  return nn.max_pool(x, (3, 3), (2, 2), 'VALID')


def _mean(x: Float[Array, 'n h w c']) -> Float[Array, 'n c']:
  return jnp.mean(x, (1, 2))


def _join(*branches: Float[Array, 'n h w _']) -> Float[Array, 'n h w c']:
  return jnp.concatenate(branches, axis=-1)


def _block(weights: PyTree, name: str = '') -> Block:
  """Makes a function that applies layers of a block in sequence.

  A layer is a convolution, a bias and a ReLU. The stride is that of the last
  layer; a strided convolution has no padding.
  """

  def apply_layers(x, *layers, stride=1, padding='SAME'):
    *previous, last = layers
    for layer in previous:
      x = apply_layers(x, layer)
    w = weights[f'{name}.{last}' if name else last]
    y = lax.conv_general_dilated(
      x,
      w['kernel'],
      (stride, stride),
      padding if stride == 1 else 'VALID',
      dimension_numbers=LAYOUT,
      precision='highest',  # TF32 or bfloat16 would change the score
    )
    return nn.relu(y + w['bias'][None, None, None])

  return apply_layers


def _mixed_a(block: Block, x: Array) -> Array:
  """Block at 35x35."""
  return _join(
    block(x, 'branch1x1'),
    block(x, 'branch5x5_1', 'branch5x5_2'),
    block(x, 'branch3x3dbl_1', 'branch3x3dbl_2', 'branch3x3dbl_3'),
    block(average(x), 'branch_pool'),
  )


def _mixed_b(block: Block, x: Array) -> Array:
  """Block from 35x35 to 17x17."""
  double = 'branch3x3dbl_1', 'branch3x3dbl_2', 'branch3x3dbl_3'
  return _join(
    block(x, 'branch3x3', stride=2),
    block(x, *double, stride=2),
    _max_pool_half(x),
  )


def _mixed_c(block: Block, x: Array) -> Array:
  """Block at 17x17, with convolutions of 1x7 and 7x1."""
  return _join(
    block(x, 'branch1x1'),
    block(x, 'branch7x7_1', 'branch7x7_2', 'branch7x7_3'),
    block(x, *(f'branch7x7dbl_{i}' for i in range(1, 6))),
    block(average(x), 'branch_pool'),
  )


def _mixed_d(block: Block, x: Array) -> Array:
  """Block from 17x17 to 8x8."""
  return _join(
    block(x, 'branch3x3_1', 'branch3x3_2', stride=2),
    block(x, *(f'branch7x7x3_{i}' for i in range(1, 5)), stride=2),
    _max_pool_half(x),
  )


def _mixed_e(block: Block, x: Array, pool: Callable[[Array], Array]) -> Array:
  """Block at 8x8, with parallel convolutions of 1x3 and 3x1."""
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
