"""Conversion of StyleGAN2 weights between the reference code and this one.

The reference is NVlabs' stylegan2-ada-pytorch: the arrays of its `state_dict`,
by name, in PyTorch's layouts. All sizes follow from the shapes of the arrays.
"""

import re
from collections.abc import Mapping

import jax
import numpy as np

from gan_jax.errors import UserError
from gan_jax.models import style, style_discriminator
from gan_jax.models.reference_weights import (
  Arrays,
  ReferenceWeights,
  is_low_pass,
  shape_mismatch,
)
from gan_jax.ops.fir import TAPS
from gan_jax.pair import Pair, Variables

NETWORKS = Pair(style.Generator, style_discriminator.Discriminator)
# Names of the reference, and (collection, name) here.
LEAVES = {
  'weight': ('params', 'kernel'),
  'bias': ('params', 'bias'),
  'const': ('params', 'const'),
  'noise_strength': ('params', 'noise_strength'),
  'noise_const': ('noise', 'constant'),
  'w_avg': ('averages', 'w_avg'),
}
NAMES = {value: name for name, value in LEAVES.items()}
# PyTorch's axes -> ours, by the name of the array and its rank: OIHW -> HWIO.
AXES = {('weight', 4): (2, 3, 1, 0), ('weight', 2): (1, 0)}
AXES[('const', 3)] = (1, 2, 0)


def from_reference(arrays: Arrays) -> ReferenceWeights:
  """Converts the arrays of a reference network, G or D.

  The shapes do not say: `clamp`, `lowprec`, and of D `group`.

  Raises:
    UserError: They are not those of a StyleGAN2 network.
  """
  if 'synthesis.b4.const' in arrays:
    found = _sizes_of_gen(arrays)
  elif 'b4.fc.weight' in arrays:
    found = _sizes_of_disc(arrays)
  else:
    raise UserError(
      'these weights are not those of a StyleGAN2 generator or discriminator '
      f'(their names: {", ".join(sorted(arrays)[:3])}, ...)'
    )
  variables: Variables = {}
  for name, array in arrays.items():
    *path, leaf = name.split('.')
    if leaf == 'resample_filter':
      _check_filter(name, array)
      continue
    if leaf not in LEAVES:
      raise UserError(
        f'these weights have {name!r}, which StyleGAN2 does not have'
      )
    collection, own_leaf = LEAVES[leaf]
    if leaf == 'w_avg':
      path = []  # one for the whole generator
    tree = variables.setdefault(collection, {})
    for part in path:
      tree = tree.setdefault(part, {})
    tree[own_leaf] = _to_ours(name, np.asarray(array))
  found = found._replace(variables=variables)
  mismatch = shape_mismatch(found, NETWORKS)
  if mismatch is not None:
    raise UserError(f'these weights do not fit a StyleGAN2 network: {mismatch}')
  return found


def to_reference(variables: Variables) -> dict[str, np.ndarray]:
  """Converts the variables of G or D to the reference's arrays.

  The constant low-pass filters, `resample_filter`, are left out.
  """
  arrays = {}
  for collection, tree in variables.items():
    for path, array in jax.tree_util.tree_leaves_with_path(tree):
      *parts, leaf = (str(key.key) for key in path)
      their_leaf = NAMES[collection, leaf]
      if their_leaf == 'w_avg':
        parts = ['mapping']
      name = '.'.join([*parts, their_leaf])
      arrays[name] = _to_theirs(name, np.asarray(array))
  return arrays


def _to_ours(name: str, array: np.ndarray) -> np.ndarray:
  leaf = name.rpartition('.')[2]
  if name == 'b4.fc.weight':  # its inputs are a flattened 4x4 image, CHW
    array = array.reshape(len(array), -1, 4, 4).transpose(0, 2, 3, 1)
    array = array.reshape(len(array), -1)
  axes = AXES.get((leaf, array.ndim))
  return np.array(array if axes is None else array.transpose(axes), order='C')


def _to_theirs(name: str, array: np.ndarray) -> np.ndarray:
  leaf = name.rpartition('.')[2]
  axes = AXES.get((leaf, array.ndim))
  if axes is not None:
    array = array.transpose(np.argsort(axes))
  if name == 'b4.fc.weight':
    array = array.reshape(len(array), 4, 4, -1).transpose(0, 3, 1, 2)
    array = array.reshape(len(array), -1)
  return np.array(array, order='C')


def _sizes_of_gen(arrays: Arrays) -> ReferenceWeights:
  sides = _sides(arrays, r'synthesis\.b(\d+)\.conv1\.weight')
  widths = {s: len(arrays[f'synthesis.b{s}.conv1.weight']) for s in sides}
  last = max(sides)
  w_dim = arrays['synthesis.b4.conv1.affine.weight'].shape[1]
  embed = arrays.get('mapping.embed.weight')
  embedded = 0 if embed is None else len(embed)
  architecture = 'orig'
  if 'synthesis.b4.torgb.weight' in arrays:
    architecture = 'skip'
  elif f'synthesis.b{last}.skip.weight' in arrays:
    architecture = 'resnet'
  block = {
    'name': 'style',
    **_features(widths),
    'architecture': architecture,
    'w_dim': w_dim,
    'mapping_layers': _mapping_layers(arrays),
  }
  return ReferenceWeights(
    'gen',
    {},
    block,
    resolution=last,
    channels=len(arrays[f'synthesis.b{last}.torgb.weight']),
    classes=0 if embed is None else embed.shape[1],
    latent_dim=arrays['mapping.fc0.weight'].shape[1] - embedded,
  )


def _sizes_of_disc(arrays: Arrays) -> ReferenceWeights:
  sides = _sides(arrays, r'b(\d+)\.conv0\.weight')
  last = max(sides)
  widths = {s: len(arrays[f'b{s}.conv0.weight']) for s in sides}
  out, into = arrays['b4.conv.weight'].shape[:2]
  widths[4] = out
  embed = arrays.get('mapping.embed.weight')
  architecture = 'orig'
  if 'b4.fromrgb.weight' in arrays:
    architecture = 'skip'
  elif f'b{last}.skip.weight' in arrays:
    architecture = 'resnet'
  block = {
    'name': 'style',
    **_features(widths),
    'architecture': architecture,
    'stddev_channels': into - out,
  }
  if embed is not None:
    block['mapping_layers'] = _mapping_layers(arrays)
  return ReferenceWeights(
    'disc',
    {},
    block,
    resolution=last,
    channels=arrays[f'b{last}.fromrgb.weight'].shape[1],
    classes=0 if embed is None else embed.shape[1],
    latent_dim=None,
  )


def _sides(arrays: Arrays, pattern: str) -> list[int]:
  matches = (re.fullmatch(pattern, name) for name in arrays)
  sides = sorted(int(match[1]) for match in matches if match)
  if not sides:
    raise UserError('these weights have no resolution above 4x4')
  return sides


def _mapping_layers(arrays: Arrays) -> int:
  names = (re.fullmatch(r'mapping\.fc\d+\.weight', name) for name in arrays)
  return sum(map(bool, names))


def _features(widths: Mapping[int, int]) -> dict[str, int]:
  """Returns the two numbers that give all widths."""
  most = max(widths.values())
  features = max(side * width for side, width in widths.items())
  expected = {side: min(features // side, most) for side in widths}
  if expected != dict(widths):
    raise UserError(
      'these weights have feature maps '
      f'{", ".join(f"{w} at {s}x{s}" for s, w in sorted(widths.items()))}, '
      'which are not min(features / resolution, most_features)'
    )
  return {'features': features, 'most_features': most}


def _check_filter(name: str, array: np.ndarray) -> None:
  if not is_low_pass(array):
    raise UserError(
      f'{name} of these weights is another low-pass filter than '
      f'{[int(tap) for tap in TAPS]}, the only one that is supported'
    )
