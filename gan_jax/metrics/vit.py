"""The Vision Transformer of DINOv2 and CLIP, a pure function of its weights.

Dosovitskiy et al. 2021: the patches of an image are the tokens of a
transformer, and the features are one more, the class token. Layers that only
one of the two networks has are applied if its weights have them.
"""

import hashlib
import itertools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Num, PyTree

from gan_jax.errors import UserError
from gan_jax.metrics import weights_file
from gan_jax.metrics.weights_file import WeightsFile

HEAD_WIDTH = 64  # of all sizes of both networks

# The tensors of a file, by name.
Arrays = Mapping[str, np.ndarray]
# The arrays of a linear layer or of a normalization.
Layer = dict[str, np.ndarray]


class Details(NamedTuple):
  """What the weights of a network do not say.

  Attributes:
    epsilon: Of the normalizations.
    activation: Of the perceptrons.
    mean, std: Of the channels of the images, as numbers in [0, 1].
  """

  epsilon: float
  activation: Callable[[Array], Array]
  mean: tuple[float, float, float]
  std: tuple[float, float, float]


class Size(NamedTuple):
  """The size of a network.

  Attributes:
    layers: The number of blocks.
    width, hidden: The features of a token, and of the perceptrons.
    patch: The side of a patch, in pixels.
    grid: The side of the images that have the positions, in patches.
    output: The features of an image.
  """

  layers: int
  width: int
  hidden: int
  patch: int
  grid: int
  output: int


def rgb(images: Num[Array, 'n h w c']) -> Num[Array, 'n h w 3']:
  """Repeats the channel of grey images.

  Raises:
    UserError: The images do not have 1 or 3 channels.
  """
  if images.shape[-1] not in (1, 3):
    raise UserError(
      f'the network takes images with 1 or 3 channels, not {images.shape[-1]}'
    )
  return jnp.broadcast_to(images, (*images.shape[:3], 3))


def class_token(
  weights: PyTree,
  images: Num[Array, 'n h w 3'],
  positions: Float[Array, 't d'],
  details: Details,
) -> Float[Array, 'n d']:
  """Returns the class token after the last block and normalization.

  Args:
    weights: Those of `shapes`.
    images: In [0, 255], of the size of the positions.
    positions: The position of the class token, and of each patch by rows.
    details: The constants of the network.
  """
  with jax.default_matmul_precision('highest'):  # TF32 would change the score
    images = images.astype(weights['token'].dtype)
    x = _patches(weights, images, details)
    first = jnp.broadcast_to(weights['token'], (len(x), 1, x.shape[2]))
    x = jnp.concatenate([first, x], axis=1) + positions[None]
    if 'norm_before' in weights:
      x = _normalize(x, weights['norm_before'], details)
    block = lambda x, w: (_block(x, w, details), None)
    x, _ = lax.scan(block, x, weights['blocks'])  # compiles one block
    return _normalize(x[:, 0], weights['norm'], details)


def _patches(
  weights: PyTree, images: Float[Array, 'n h w 3'], details: Details
) -> Float[Array, 'n t d']:
  """Embeds the patches of images in [0, 255]."""
  mean, std = (
    _like(jnp.asarray(x, images.dtype), images)
    for x in (details.mean, details.std)
  )
  x = (images / 255 - mean) / std
  kernel = weights['patch']['kernel']
  side, grid = kernel.shape[0], x.shape[1] // kernel.shape[0]
  x = x.reshape(len(x), grid, side, grid, side, 3).swapaxes(2, 3)
  x = x.reshape(len(x), grid**2, -1)
  x = x @ kernel.reshape(x.shape[2], -1)
  if 'bias' in weights['patch']:
    x = x + _like(weights['patch']['bias'], x)
  return x


def _block(
  x: Float[Array, 'n t d'], w: PyTree, details: Details
) -> Float[Array, 'n t d']:
  """Applies self-attention and a perceptron, each after a normalization."""
  y = _attend(_normalize(x, w['norm_1'], details), w)
  x = x + (y * _like(w['scale_1'], y) if 'scale_1' in w else y)
  y = _linear(_normalize(x, w['norm_2'], details), w['up'])
  y = _linear(details.activation(y), w['down'])
  return x + (y * _like(w['scale_2'], y) if 'scale_2' in w else y)


def _attend(x: Float[Array, 'n t d'], w: PyTree) -> Float[Array, 'n t d']:
  """Applies self-attention, softmax(q k^T / sqrt(64)) v in each head.

  One head after the other, because the products q k^T of all heads would take
  more memory than all else.
  """
  n, t, width = x.shape
  heads = _linear(x, w['qkv']).reshape(n, t, 3, -1, HEAD_WIDTH)

  def head(qkv: Float[Array, '3 n t c']) -> Float[Array, 'n t c']:
    q, k, v = qkv
    logits = jnp.einsum('nqc,nkc->nqk', q / math.sqrt(HEAD_WIDTH), k)
    return jnp.einsum('nqk,nkc->nqc', jax.nn.softmax(logits), v)

  attended = lax.map(head, jnp.moveaxis(heads, (3, 2), (0, 1)))
  return _linear(jnp.moveaxis(attended, 0, 2).reshape(n, t, width), w['out'])


def _linear(x: Float[Array, 'n t d'], w: PyTree) -> Float[Array, 'n t e']:
  y = x @ w['kernel']
  return y + _like(w['bias'], y)


def _normalize(
  x: Float[Array, '*t d'], w: PyTree, details: Details
) -> Float[Array, '*t d']:
  """Applies LayerNorm to each token."""
  x = x - x.mean(-1, keepdims=True)
  x = x * lax.rsqrt((x * x).mean(-1, keepdims=True) + details.epsilon)
  return x * _like(w['scale'], x) + _like(w['bias'], x)


def _like(vector: Float[Array, ' d'], x: Array) -> Array:
  """Adds axes to a vector of the last axis of x."""
  return vector.reshape((1,) * (x.ndim - 1) + (-1,))


# Weights, from the tensors of a file.


def load(
  file: WeightsFile,
  to_weights: Callable[[Arrays], PyTree],
  shapes: Callable[[Size], PyTree],
  path: str | Path | None = None,
) -> tuple[PyTree, str]:
  """Loads the weights of a network in float32, and returns their SHA-256 too.

  The hash is that of the weights, which is the same for all formats of a file.

  Args:
    file: Where the file is.
    to_weights: Converts its tensors; raises KeyError or ValueError.
    shapes: Size -> the shapes that the weights must have.
    path: The file. None: the one that the variable of `file` names; without
      the variable, the first file found.

  Raises:
    UserError: The file does not exist or is damaged, or holds another network.
  """
  found = file.find(path)
  try:
    weights = to_weights(weights_file.read(found))
    _check(weights, shapes(size_of(weights)))
  except UserError:
    raise
  except (LookupError, TypeError, ValueError) as error:
    reason = f'no {error}' if isinstance(error, KeyError) else error
    raise UserError(
      f'{found} holds another network ({reason}): {file.where_to_get()}'
    ) from error
  to_float32 = lambda x: np.ascontiguousarray(x, np.float32)
  weights = jax.tree.map(to_float32, weights)
  sha256 = hashlib.sha256()
  for array in jax.tree.leaves(weights):
    sha256.update(array)
  return weights, sha256.hexdigest()


def _check(weights: PyTree, expected: PyTree) -> None:
  """Raises ValueError if a shape is wrong, or if the heads do not fit."""
  width = len(weights['token'])
  if width % HEAD_WIDTH:
    raise ValueError(f'its width {width} is not a multiple of {HEAD_WIDTH}')
  leaves = jax.tree_util.tree_leaves_with_path(expected)
  found = dict(jax.tree_util.tree_leaves_with_path(weights))
  for path, leaf in leaves:
    if found[path].shape != leaf.shape:
      name = jax.tree_util.keystr(path, simple=True, separator='.')
      raise ValueError(f'{name} is {found[path].shape}, not {leaf.shape}')


def linear(arrays: Arrays, *names: str) -> Layer:
  """Returns a linear layer that computes several ones, side by side."""
  return {
    'kernel': np.concatenate([arrays[f'{name}.weight'] for name in names]).T,
    'bias': np.concatenate([arrays[f'{name}.bias'] for name in names]),
  }


def norm(arrays: Arrays, name: str) -> Layer:
  """Returns a normalization."""
  return {'scale': arrays[f'{name}.weight'], 'bias': arrays[f'{name}.bias']}


def patch_kernel(kernel: Float[np.ndarray, 'd c h w']) -> np.ndarray:
  """Returns the kernel of the patches in our layout, HWIO."""
  return kernel.transpose(2, 3, 1, 0)


def stack(arrays: Arrays, name: str, block: Callable[[str], PyTree]) -> PyTree:
  """Returns the weights of all blocks, [layers, ...].

  Args:
    arrays: The tensors.
    name: The blocks are NAME.0, NAME.1, ...
    block: NAME.i -> its weights.
  """
  prefixes = (f'{name}.{i}.' for i in itertools.count(1))
  has = lambda prefix: any(x.startswith(prefix) for x in arrays)
  layers = 1 + len(list(itertools.takewhile(has, prefixes)))
  blocks = [block(f'{name}.{i}') for i in range(layers)]
  return jax.tree.map(lambda *x: np.stack(x), *blocks)


def grid_of(positions: Float[Array, 't d'] | Float[np.ndarray, 't d']) -> int:
  """Returns the side of the images that have these positions, in patches."""
  return math.isqrt(len(positions) - 1)


def size_of(weights: PyTree) -> Size:
  """Reads the size of a network from the shapes of its weights."""
  layers, width, hidden = weights['blocks']['up']['kernel'].shape
  patch = weights['patch']['kernel'].shape[0]
  grid = grid_of(weights['positions'])
  output = weights['projection'].shape[1] if 'projection' in weights else width
  return Size(layers, width, hidden, patch, grid, output)


def shapes(size: Size) -> PyTree:
  """Returns the shapes of the weights that both networks have."""
  layers, width, hidden, patch, grid, _ = size
  one = lambda *shape: jax.ShapeDtypeStruct(shape, np.float32)
  each = lambda *shape: one(layers, *shape)
  normalization = lambda of: {'scale': of(width), 'bias': of(width)}
  layer = lambda a, b: {'kernel': each(a, b), 'bias': each(b)}
  return {
    'patch': {'kernel': one(patch, patch, 3, width)},
    'token': one(width),
    'positions': one(1 + grid**2, width),
    'blocks': {
      'norm_1': normalization(each),
      'qkv': layer(width, 3 * width),
      'out': layer(width, width),
      'norm_2': normalization(each),
      'up': layer(width, hidden),
      'down': layer(hidden, width),
    },
    'norm': normalization(one),
  }
