"""The weights of R3GAN's reference code as those of models/r3gan.py.

Names are those of github.com/brownvc/R3GAN, as `Model.MainLayers.0.Layers.1...`
for stage 0, layer 1. G's stages begin at 4x4, D's at the images. The resampling
filter is a buffer there, and fixed here.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import PyTree

from gan_jax.errors import UserError

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
IGNORED = 'Resampler.Kernel'
# Parameters outside of the stages -> the parameter here.
OUTER = {
  'Model.AggregationLayer.Layer.weight': ('to_image', 'kernel'),
  'Model.ExtractionLayer.Layer.weight': ('from_image', 'kernel'),
  'Model.EmbeddingLayer.weight': ('embed',),
}


def is_r3gan(arrays: Arrays) -> bool:
  """Whether the arrays have the names of an R3GAN."""
  return any(LAYER.fullmatch(name) for name in arrays)


def convert(arrays: Arrays) -> PyTree:
  """Converts the parameters of a generator or of a discriminator.

  Args:
    arrays: The parameters by PyTorch's names; buffers are ignored.

  Raises:
    UserError: A name is not that of an R3GAN.
  """
  is_gen = 'Model.AggregationLayer.Layer.weight' in arrays
  stages = [int(m[1]) for m in map(LAYER.fullmatch, arrays) if m]
  last = max(stages, default=0)
  params: dict[str, Any] = {}
  for name, array in arrays.items():
    if name.endswith(IGNORED):
      continue
    path = OUTER.get(name) or _path(name, last, is_gen)
    block = params
    for key in path[:-1]:
      block = block.setdefault(key, {})
    block[path[-1]] = _layout(path[-1], array)
  return params


def settings(gen: PyTree) -> dict[str, Any]:
  """Returns what converted parameters of G determine.

  Returns:
    resolution, channels, latent_dim, classes (0: unconditional), and the fields
    of the networks: features, groups, num_blocks, expansion.
  """
  blocks = [name.split('_') for name in gen if name.startswith('block_')]
  sizes = sorted({int(size) for _, size, _ in blocks})
  spatial = [gen[f'block_{size}_0']['spatial']['kernel'] for size in sizes]
  expand = [gen[f'block_{size}_0']['expand']['kernel'] for size in sizes]
  classes, embedding = gen['embed'].shape if 'embed' in gen else (0, 0)
  return {
    'resolution': sizes[-1],
    'channels': gen['to_image']['kernel'].shape[-1],
    'latent_dim': gen['scale'].shape[0] - embedding,
    'classes': classes,
    'features': tuple(w.shape[2] for w in expand),
    'groups': tuple(w.shape[3] // w.shape[2] for w in spatial),
    'num_blocks': max(int(index) for _, _, index in blocks) + 1,
    'expansion': expand[0].shape[3] // expand[0].shape[2],
  }


def _path(name: str, last: int, is_gen: bool) -> tuple[str, ...]:
  """Returns the path of a parameter of a stage."""
  match = LAYER.fullmatch(name)
  if match is None:
    raise UserError(f'has a parameter {name!r}, which R3GAN does not have')
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
  raise UserError(f'has a parameter {name!r}, which R3GAN does not have')


def _layout(key: str, array: np.ndarray) -> np.ndarray:
  """Changes PyTorch's layout of a parameter to the one here."""
  if key == 'kernel':
    return array.transpose(2, 3, 1, 0)
  if key == 'basis':  # [c, 4, 4] of G, [c, 1, 4, 4] of D
    return array.reshape(-1, 4, 4).transpose(1, 2, 0)
  return array.T
