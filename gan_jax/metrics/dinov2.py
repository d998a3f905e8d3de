"""DINOv2, the features of FD-DINOv2.

Oquab et al. 2024: ViT-S/14, B/14 or L/14, without registers. Stein et al. 2023
compare generators by the Fréchet distance of the class tokens of ViT-L/14. As
in their code, dgm-eval, images are resized to 224x224 by Pillow's bicubic and
rounded to uint8, and then normalized by the statistics of ImageNet.

The positions, which were learnt for 37x37 patches, are interpolated to 16x16 as
in the code of PyTorch Hub, which dgm-eval runs: by a factor of 16.1 / 37. In
Hugging Face's transformers it is 16 / 37, so that its features differ from
these.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num, PyTree

from gan_jax.metrics import vit
from gan_jax.metrics.weights_file import WeightsFile
from gan_jax.models.perceptual import MEAN, STD
from gan_jax.ops.bicubic import pillow_resize, pytorch_weights

FILE = WeightsFile(
  'DINOv2',
  'GAN_JAX_DINOV2',
  (
    'gan_jax/dinov2-large/model.safetensors',
    'huggingface/hub/models--facebook--dinov2-large/snapshots/*/'
    'model.safetensors',
    'torch/hub/checkpoints/dinov2_vitl14_pretrain.pth',
  ),
  'model.safetensors of https://huggingface.co/facebook/dinov2-large',
)
SIZE = 224
DETAILS = vit.Details(1e-6, partial(jax.nn.gelu, approximate=False), MEAN, STD)
# The code of PyTorch Hub adds this to the number of patches of a side when it
# interpolates the positions (`interpolate_offset`).
OFFSET = 0.1

# Parts of PyTorch Hub's names -> those of transformers.
RENAMED = {
  'cls_token': 'embeddings.cls_token',
  'pos_embed': 'embeddings.position_embeddings',
  'patch_embed.proj.': 'embeddings.patch_embeddings.projection.',
  'blocks.': 'encoder.layer.',
  '.attn.proj.': '.attention.output.dense.',
  '.ls1.gamma': '.layer_scale1.lambda1',
  '.ls2.gamma': '.layer_scale2.lambda1',
}


def extract(
  weights: PyTree, images: Num[Array, 'n h w c']
) -> dict[str, Float[Array, 'n d']]:
  """Returns 'features', the class tokens.

  Args:
    weights: Those of `load`.
    images: Grey or RGB, of any size; uint8, or floats in [0, 255], which are
      not rounded.
  """
  x = vit.rgb(pillow_resize(images, SIZE))
  grid = SIZE // weights['patch']['kernel'].shape[0]
  positions = interpolate(weights['positions'], grid)
  return {'features': vit.class_token(weights, x, positions, DETAILS)}


def interpolate(
  positions: Float[Array, 't d'], grid: int
) -> Float[Array, 'u d']:
  """Interpolates the positions of square images to grid x grid patches."""
  size = vit.grid_of(positions)
  if size == grid:
    return positions
  matrix = pytorch_weights(size, grid, (grid + OFFSET) / size)
  matrix = jnp.asarray(matrix, positions.dtype)
  square = positions[1:].reshape(size, size, -1)
  square = jnp.einsum(
    'hwd,Hh,Ww->HWd', square, matrix, matrix, precision='highest'
  )
  patches = square.reshape(grid**2, -1)
  return jnp.concatenate([positions[:1], patches])


def to_weights(arrays: vit.Arrays) -> PyTree:
  """Converts the tensors of a file, by their names.

  Raises:
    KeyError: A tensor is missing.
    ValueError: The network has registers.
  """
  if 'pos_embed' in arrays:
    arrays = _renamed(arrays)
  if any('register_tokens' in name for name in arrays):
    raise ValueError('it has registers')

  def block(name: str) -> PyTree:
    attention = f'{name}.attention.attention'
    parts = [f'{attention}.{part}' for part in ('query', 'key', 'value')]
    return {
      'norm_1': vit.norm(arrays, f'{name}.norm1'),
      'qkv': vit.linear(arrays, *parts),
      'out': vit.linear(arrays, f'{name}.attention.output.dense'),
      'scale_1': arrays[f'{name}.layer_scale1.lambda1'],
      'norm_2': vit.norm(arrays, f'{name}.norm2'),
      'up': vit.linear(arrays, f'{name}.mlp.fc1'),
      'down': vit.linear(arrays, f'{name}.mlp.fc2'),
      'scale_2': arrays[f'{name}.layer_scale2.lambda1'],
    }

  projection = 'embeddings.patch_embeddings.projection'
  return {
    'patch': {
      'kernel': vit.patch_kernel(arrays[f'{projection}.weight']),
      'bias': arrays[f'{projection}.bias'],
    },
    'token': arrays['embeddings.cls_token'][0, 0],
    'positions': arrays['embeddings.position_embeddings'][0],
    'blocks': vit.stack(arrays, 'encoder.layer', block),
    'norm': vit.norm(arrays, 'layernorm'),
  }


def _renamed(arrays: vit.Arrays) -> dict[str, np.ndarray]:
  """Gives the tensors of PyTorch Hub the names of transformers."""
  renamed = {}
  for name, array in arrays.items():
    for old, new in RENAMED.items():
      name = name.replace(old, new)
    if name.startswith('norm.'):
      name = f'layer{name}'
    if '.attn.qkv.' in name:
      for part, third in zip(
        ('query', 'key', 'value'), np.split(array, 3), strict=True
      ):
        renamed[name.replace('attn.qkv', f'attention.attention.{part}')] = third
    else:
      renamed[name] = array
  return renamed


def shapes(size: vit.Size) -> PyTree:
  """Returns the shapes of the weights of a size."""
  found = vit.shapes(size)
  one = lambda *shape: jax.ShapeDtypeStruct(shape, np.float32)
  found['patch']['bias'] = one(size.width)
  for name in ('scale_1', 'scale_2'):
    found['blocks'][name] = one(size.layers, size.width)
  return found


# (path) -> the weights, and their SHA-256.
load = partial(vit.load, FILE, to_weights, shapes)
