"""CLIP's embeddings of images, the features of CMMD.

Radford et al. 2021. Jayasumana et al. 2024 compare generators by the embeddings
of ViT-L/14 at 336 pixels, scaled to unit length. As in their code, the largest
square of the centre is resized by Pillow's bicubic and rounded to uint8, and
then normalized by the statistics of CLIP's images.

Only the networks of OpenAI: those of others (LAION) have the same tensors, but
another activation, which no file of weights tells.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num, PyTree

from gan_jax.metrics import vit
from gan_jax.metrics.weights_file import WeightsFile
from gan_jax.ops.bicubic import pillow_resize

NAME = 'clip-vit-large-patch14-336'
FILE = WeightsFile(
  'CLIP',
  'GAN_JAX_CLIP',
  tuple(
    f'{folder}/{file}'
    for folder in (
      f'gan_jax/{NAME}',
      f'huggingface/hub/models--openai--{NAME}/snapshots/*',
    )
    for file in ('model.safetensors', 'pytorch_model.bin')
  ),
  f'model.safetensors or pytorch_model.bin of https://huggingface.co/openai/{NAME}',
)


def quick_gelu(x: Float[Array, '*s']) -> Float[Array, '*s']:
  """The approximation of GELU that CLIP was trained with."""
  return x * jax.nn.sigmoid(1.702 * x)


DETAILS = vit.Details(
  1e-5,
  quick_gelu,
  (0.48145466, 0.4578275, 0.40821073),
  (0.26862954, 0.26130258, 0.27577711),
)


def extract(
  weights: PyTree, images: Num[Array, 'n h w c']
) -> dict[str, Float[Array, 'n d']]:
  """Returns 'features', the embeddings, of unit length.

  Args:
    weights: Those of `load`.
    images: Grey or RGB, of any size; uint8, or floats in [0, 255], which are
      not rounded.
  """
  positions = weights['positions']
  side = min(images.shape[1:3])
  top, left = ((x - side) // 2 for x in images.shape[1:3])
  square = images[:, top : top + side, left : left + side]
  size = vit.grid_of(positions) * weights['patch']['kernel'].shape[0]
  x = vit.rgb(pillow_resize(square, size))
  x = vit.class_token(weights, x, positions, DETAILS)
  x = jnp.matmul(x, weights['projection'], precision='highest')
  return {'features': x / jnp.linalg.norm(x, axis=1, keepdims=True)}


def to_weights(arrays: vit.Arrays) -> PyTree:
  """Converts the tensors of a file, by their names.

  Raises:
    KeyError: A tensor is missing.
  """

  def block(name: str) -> PyTree:
    parts = [f'{name}.self_attn.{part}_proj' for part in 'qkv']
    return {
      'norm_1': vit.norm(arrays, f'{name}.layer_norm1'),
      'qkv': vit.linear(arrays, *parts),
      'out': vit.linear(arrays, f'{name}.self_attn.out_proj'),
      'norm_2': vit.norm(arrays, f'{name}.layer_norm2'),
      'up': vit.linear(arrays, f'{name}.mlp.fc1'),
      'down': vit.linear(arrays, f'{name}.mlp.fc2'),
    }

  embeddings = 'vision_model.embeddings'
  kernel = arrays[f'{embeddings}.patch_embedding.weight']
  return {
    'patch': {'kernel': vit.patch_kernel(kernel)},
    'token': arrays[f'{embeddings}.class_embedding'],
    'positions': arrays[f'{embeddings}.position_embedding.weight'],
    'norm_before': vit.norm(arrays, 'vision_model.pre_layrnorm'),
    'blocks': vit.stack(arrays, 'vision_model.encoder.layers', block),
    'norm': vit.norm(arrays, 'vision_model.post_layernorm'),
    'projection': arrays['visual_projection.weight'].T,
  }


def shapes(size: vit.Size) -> PyTree:
  """Returns the shapes of the weights of a size."""
  one = lambda *shape: jax.ShapeDtypeStruct(shape, np.float32)
  normalization = {'scale': one(size.width), 'bias': one(size.width)}
  projection = one(size.width, size.output)
  return {
    **vit.shapes(size),
    'norm_before': normalization,
    'projection': projection,
  }


# (path) -> the weights, and their SHA-256.
load = partial(vit.load, FILE, to_weights, shapes)
