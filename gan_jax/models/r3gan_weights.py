"""The weights of R3GAN's reference code as those of models/r3gan.py.

Names are those of github.com/brownvc/R3GAN, as `Model.MainLayers.0.Layers.1...`
for stage 0, layer 1. G's stages begin at 4x4, D's at the images. The resampling
filter is a buffer there, and fixed here. All sizes follow from the shapes.
"""

import re
from typing import Any

import numpy as np
from jaxtyping import PyTree

from gan_jax.errors import UserError
from gan_jax.models import r3gan
from gan_jax.models.reference_weights import (
  Arrays,
  ReferenceWeights,
  is_low_pass,
  shape_mismatch,
)
from gan_jax.pair import Pair

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
NETWORKS = Pair(r3gan.Generator, r3gan.Discriminator)
# Parameters outside of the stages -> the parameter here.
OUTER = {
  'Model.AggregationLayer.Layer.weight': ('to_image', 'kernel'),
  'Model.ExtractionLayer.Layer.weight': ('from_image', 'kernel'),
  'Model.EmbeddingLayer.weight': ('embed',),
}


def is_r3gan(arrays: Arrays) -> bool:
  """Whether the arrays have the names of an R3GAN."""
  return any(LAYER.fullmatch(name) for name in arrays)


def from_reference(arrays: Arrays) -> ReferenceWeights:
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
    mismatch = shape_mismatch(found, NETWORKS)
    if mismatch is not None:
      raise ValueError(mismatch)
  except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
    raise UserError(
      f'these weights do not fit an R3GAN network ({error}): expected those '
      'of github.com/brownvc/R3GAN'
    ) from error
  return found


def _sizes(params: PyTree, is_gen: bool) -> ReferenceWeights:
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
  return ReferenceWeights(
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


def _check_kernel(name: str, array: np.ndarray) -> None:
  """Refuses another resampling filter."""
  if not is_low_pass(array):
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
