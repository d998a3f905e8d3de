"""Random weights of small DINOv2 and CLIP, with the names of their files."""

import numpy as np

WIDTH, HIDDEN, LAYERS, OUTPUT = 128, 256, 3, 96


def images():
  """Makes two images, neither square nor smooth: uint8 [2, 30, 44, 3]."""
  n, y, x, c = np.ogrid[:2, :30, :44, :3]
  made = 5 * y * y + (7 + 4 * n) * x * (c + 1) + x * x // 3 + 90 * c + 50 * n
  return (made % 256).astype(np.uint8)


class Draw:
  """Draws arrays one after the other."""

  def __init__(self, seed):
    self._draw = np.random.default_rng(seed)

  def normal(self, *shape, std=1.0, mean=0.0):
    drawn = self._draw.standard_normal(shape)
    return (mean + std * drawn).astype(np.float32)

  def linear(self, name, out, size, gain=1.0):
    return {
      f'{name}.weight': self.normal(out, size, std=gain / np.sqrt(size)),
      f'{name}.bias': self.normal(out, std=0.2),
    }

  def norm(self, name):
    return {
      f'{name}.weight': self.normal(WIDTH, std=0.2, mean=1),
      f'{name}.bias': self.normal(WIDTH, std=0.2),
    }


def dinov2(grid, seed=0, layers=LAYERS):
  """The tensors of facebook/dinov2-*, for images of grid x grid patches."""
  draw = Draw(seed)
  patch = 'embeddings.patch_embeddings.projection'
  arrays = {
    'embeddings.cls_token': draw.normal(1, 1, WIDTH),
    'embeddings.mask_token': draw.normal(1, WIDTH),
    'embeddings.position_embeddings': draw.normal(1, 1 + grid**2, WIDTH),
    f'{patch}.weight': draw.normal(WIDTH, 3, 14, 14, std=588**-0.5),
    f'{patch}.bias': draw.normal(WIDTH, std=0.2),
  }
  for i in range(layers):
    name = f'encoder.layer.{i}'
    attention = f'{name}.attention.attention'
    arrays |= draw.norm(f'{name}.norm1') | draw.norm(f'{name}.norm2')
    for part in ('query', 'key', 'value'):
      arrays |= draw.linear(f'{attention}.{part}', WIDTH, WIDTH, gain=1.5)
    arrays |= draw.linear(f'{name}.attention.output.dense', WIDTH, WIDTH)
    arrays |= draw.linear(f'{name}.mlp.fc1', HIDDEN, WIDTH)
    arrays |= draw.linear(f'{name}.mlp.fc2', WIDTH, HIDDEN)
    for scale in (1, 2):
      scales = draw.normal(WIDTH, std=0.3, mean=0.7)
      arrays[f'{name}.layer_scale{scale}.lambda1'] = scales
  return arrays | draw.norm('layernorm')


def of_pytorch_hub(arrays):
  """The same tensors with the names of dinov2_vit*14_pretrain.pth."""
  old = {
    'cls_token': 'embeddings.cls_token',
    'mask_token': 'embeddings.mask_token',
    'pos_embed': 'embeddings.position_embeddings',
  }
  found = {name: arrays[of] for name, of in old.items()}
  for kind in ('weight', 'bias'):
    patch = f'embeddings.patch_embeddings.projection.{kind}'
    found[f'patch_embed.proj.{kind}'] = arrays[patch]
    found[f'norm.{kind}'] = arrays[f'layernorm.{kind}']
    for i in range(LAYERS):
      new, at = f'blocks.{i}', f'encoder.layer.{i}'
      found[f'{new}.attn.qkv.{kind}'] = np.concatenate(
        [
          arrays[f'{at}.attention.attention.{part}.{kind}']
          for part in ('query', 'key', 'value')
        ]
      )
      output = arrays[f'{at}.attention.output.dense.{kind}']
      found[f'{new}.attn.proj.{kind}'] = output
      for part in ('norm1', 'norm2', 'mlp.fc1', 'mlp.fc2'):
        found[f'{new}.{part}.{kind}'] = arrays[f'{at}.{part}.{kind}']
  for i in range(LAYERS):
    for j in (1, 2):
      scale = arrays[f'encoder.layer.{i}.layer_scale{j}.lambda1']
      found[f'blocks.{i}.ls{j}.gamma'] = scale
  return found


def clip(grid, seed=0):
  """The tensors of openai/clip-vit-*, and one of the network of texts."""
  draw = Draw(seed)
  at = 'vision_model.embeddings'
  arrays = {
    'text_model.final_layer_norm.weight': draw.normal(WIDTH),
    f'{at}.position_ids': np.arange(1 + grid**2)[None],
    f'{at}.class_embedding': draw.normal(WIDTH),
    f'{at}.patch_embedding.weight': draw.normal(
      WIDTH, 3, 14, 14, std=588**-0.5
    ),
    f'{at}.position_embedding.weight': draw.normal(1 + grid**2, WIDTH),
    'visual_projection.weight': draw.normal(OUTPUT, WIDTH, std=WIDTH**-0.5),
  }
  for name in ('pre_layrnorm', 'post_layernorm'):
    arrays |= draw.norm(f'vision_model.{name}')
  for i in range(LAYERS):
    name = f'vision_model.encoder.layers.{i}'
    arrays |= draw.norm(f'{name}.layer_norm1')
    arrays |= draw.norm(f'{name}.layer_norm2')
    for part in ('q_proj', 'k_proj', 'v_proj', 'out_proj'):
      arrays |= draw.linear(f'{name}.self_attn.{part}', WIDTH, WIDTH, gain=1.5)
    arrays |= draw.linear(f'{name}.mlp.fc1', HIDDEN, WIDTH)
    arrays |= draw.linear(f'{name}.mlp.fc2', WIDTH, HIDDEN)
  return arrays
