"""The weights of R3GAN's reference code as those of models/r3gan.py.

Names are those of github.com/brownvc/R3GAN, as `Model.MainLayers.0.Layers.1...`
for stage 0, layer 1. G's stages begin at 4x4, D's at the images. The resampling
filter is a buffer there, and fixed here. All sizes follow from the shapes.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from gan_jax.errors import UserError
from gan_jax.models import r3gan
from gan_jax.ops.fir import TAPS
from gan_jax.pair import Variables

Arrays = Mapping[str, np.ndarray]

LAYER = re.compile(r'Model\.MainLayers\.(\d+)\.Layers\.(\d+)\.(.+)')
# A part of a residual block -> the parameter here.
PARTS = {
  'LinearLayer1.Layer.weight': ('expand', 'kernel'),
  'LinearLayer2.Layer.weight': ('spatial', 'kernel'),
  'LinearLayer3.Layer.weight': ('project', 'kernel'),
  'NonLinearity1.Bias': ('activation_1', 'bias'),
  'NonLinearity2.Bias': ('activation_2', 'bias'),
}
KERNEL = 'Resampler.Kernel'
# Parameters outside of the stages -> the parameter here.
OUTER = {
  'Model.AggregationLayer.Layer.weight': ('to_image', 'kernel'),
  'Model.ExtractionLayer.Layer.weight': ('from_image', 'kernel'),
  'Model.EmbeddingLayer.weight': ('embed',),
}


class R3GANWeights(NamedTuple):
  """A converted network.

  Attributes:
    player: 'gen' or 'disc'.
    variables: Its Flax variables.
    block: `config.model.PLAYER`.
    resolution, channels, classes: Of the images.
    latent_dim: Dimension of z; D: None.
  """

  player: str
  variables: Variables
  block: dict[str, Any]
  resolution: int
  channels: int
  classes: int
  latent_dim: int | None


def is_r3gan(arrays: Arrays) -> bool:
  """Whether the arrays have the names of an R3GAN."""
  return any(LAYER.fullmatch(name) for name in arrays)


def from_reference(arrays: Arrays) -> R3GANWeights:
  """Converts the arrays of a reference network, G or D.

  Raises:
    UserError: They are not those of an R3GAN network.
  """
  is_gen = 'Model.AggregationLayer.Layer.weight' in arrays
  stages = [int(m[1]) for m in map(LAYER.fullmatch, arrays) if m]
  last = max(stages, default=0)
  params: dict[str, Any] = {}
  for name, array in arrays.items():
    if name.endswith(KERNEL):
      _check_kernel(name, array)
      continue
    path = OUTER.get(name) or _path(name, last, is_gen)
    block = params
    for key in path[:-1]:
      block = block.setdefault(key, {})
    block[path[-1]] = _layout(path[-1], np.asarray(array))
  try:
    found = _sizes(params, is_gen)
    _check_shapes(found)
  except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
    raise UserError(
      f'these weights do not fit an R3GAN network ({error}): expected those '
      'of github.com/brownvc/R3GAN'
    ) from error
  return found


def _sizes(params: PyTree, is_gen: bool) -> R3GANWeights:
  """Reads the sizes of a network from its parameters."""
  blocks = [name.split('_') for name in params if name.startswith('block_')]
  sizes = sorted({int(size) for _, size, _ in blocks})
  first = [params[f'block_{size}_0'] for size in sizes]
  expand, spatial = (
    [block[name]['kernel'].shape for block in first]
    for name in ('expand', 'spatial')
  )
  classes, embedding = params['embed'].shape if 'embed' in params else (0, 0)
  block = {
    'name': 'r3gan',
    'features': tuple(shape[2] for shape in expand),
    'groups': tuple(shape[3] // shape[2] for shape in spatial),
    'num_blocks': max(int(index) for _, _, index in blocks) + 1,
    'expansion': expand[0][3] // expand[0][2],
  }
  return R3GANWeights(
    'gen' if is_gen else 'disc',
    {'params': params},
    block,
    resolution=sizes[-1],
    channels=(
      params['to_image']['kernel'].shape[3]
      if is_gen
      else params['from_image']['kernel'].shape[2]
    ),
    classes=classes,
    latent_dim=len(params['scale']) - embedding if is_gen else None,
  )


def _check_shapes(found: R3GANWeights) -> None:
  """Raises ValueError unless the network has exactly these parameters."""
  block = {k: v for k, v in found.block.items() if k != 'name'}
  is_gen = found.player == 'gen'
  make = r3gan.Generator if is_gen else r3gan.Discriminator
  network = make(found.resolution, found.channels, **block)
  size = found.resolution
  shape = (found.latent_dim,) if is_gen else (size, size, found.channels)
  labels = jnp.zeros((1, found.classes)) if found.classes else None
  key = jax.random.key(0)
  expected = jax.eval_shape(
    lambda: network.init(key, jnp.zeros((1, *shape)), key[None], False, labels)
  )
  shapes = lambda tree: {
    jax.tree_util.keystr(path): array.shape
    for path, array in jax.tree_util.tree_leaves_with_path(tree)
  }
  ours, theirs = shapes(expected), shapes(found.variables)
  for name in sorted(ours.keys() | theirs.keys()):
    if ours.get(name) != theirs.get(name):
      raise ValueError(
        f'{name} has shape {theirs.get(name)}, expected {ours.get(name)}'
      )


def _check_kernel(name: str, array: np.ndarray) -> None:
  """Refuses another resampling filter."""
  taps = np.asarray(TAPS) / sum(TAPS)
  if array.shape != (4, 4) or not np.allclose(array, np.outer(taps, taps)):
    raise UserError(
      f'{name} of these weights is another filter than [1, 2, 1], the only one '
      'that is supported'
    )


def _path(name: str, last: int, is_gen: bool) -> tuple[str, ...]:
  """Returns the path of a parameter of a stage."""
  match = LAYER.fullmatch(name)
  if match is None:
    raise UserError(f'these weights have {name!r}, which R3GAN does not have')
  stage, layer, part = int(match[1]), int(match[2]), match[3]
  size = 4 * 2 ** (stage if is_gen else last - stage)
  if part in PARTS:
    return f'block_{size}_{layer - 1 if is_gen else layer}', *PARTS[part]
  if part == 'LinearLayer.Layer.weight':
    return f'transition_{size if is_gen else size // 2}', 'kernel'
  if part in ('Basis', 'Basis.weight'):
    return ('basis',)
  if part == 'LinearLayer.weight':
    return ('scale' if is_gen else 'project',)
  raise UserError(f'these weights have {name!r}, which R3GAN does not have')


def _layout(key: str, array: np.ndarray) -> np.ndarray:
  """Changes PyTorch's layout of a parameter to the one here."""
  if key == 'kernel':
    return array.transpose(2, 3, 1, 0)
  if key == 'basis':  # [c, 4, 4] of G, [c, 1, 4, 4] of D
    return array.reshape(-1, 4, 4).transpose(1, 2, 0)
  return array.T
