"""Random weights for Inception with PyTorch's names, and their files."""

import zipfile

import numpy as np

STEM = {
  'Conv2d_1a_3x3': (32, 3, 3, 3),
  'Conv2d_2a_3x3': (32, 32, 3, 3),
  'Conv2d_2b_3x3': (64, 32, 3, 3),
  'Conv2d_3b_1x1': (80, 64, 1, 1),
  'Conv2d_4a_3x3': (192, 80, 3, 3),
}


def block_a(c, pool):
  return {
    'branch1x1': (64, c, 1, 1),
    'branch5x5_1': (48, c, 1, 1),
    'branch5x5_2': (64, 48, 5, 5),
    'branch3x3dbl_1': (64, c, 1, 1),
    'branch3x3dbl_2': (96, 64, 3, 3),
    'branch3x3dbl_3': (96, 96, 3, 3),
    'branch_pool': (pool, c, 1, 1),
  }


def block_b(c):
  return {
    'branch3x3': (384, c, 3, 3),
    'branch3x3dbl_1': (64, c, 1, 1),
    'branch3x3dbl_2': (96, 64, 3, 3),
    'branch3x3dbl_3': (96, 96, 3, 3),
  }


def block_c(c, inner):
  return {
    'branch1x1': (192, c, 1, 1),
    'branch7x7_1': (inner, c, 1, 1),
    'branch7x7_2': (inner, inner, 1, 7),
    'branch7x7_3': (192, inner, 7, 1),
    'branch7x7dbl_1': (inner, c, 1, 1),
    'branch7x7dbl_2': (inner, inner, 7, 1),
    'branch7x7dbl_3': (inner, inner, 1, 7),
    'branch7x7dbl_4': (inner, inner, 7, 1),
    'branch7x7dbl_5': (192, inner, 1, 7),
    'branch_pool': (192, c, 1, 1),
  }


def block_d(c):
  return {
    'branch3x3_1': (192, c, 1, 1),
    'branch3x3_2': (320, 192, 3, 3),
    'branch7x7x3_1': (192, c, 1, 1),
    'branch7x7x3_2': (192, 192, 1, 7),
    'branch7x7x3_3': (192, 192, 7, 1),
    'branch7x7x3_4': (192, 192, 3, 3),
  }


def block_e(c):
  return {
    'branch1x1': (320, c, 1, 1),
    'branch3x3_1': (384, c, 1, 1),
    'branch3x3_2a': (384, 384, 1, 3),
    'branch3x3_2b': (384, 384, 3, 1),
    'branch3x3dbl_1': (448, c, 1, 1),
    'branch3x3dbl_2': (384, 448, 3, 3),
    'branch3x3dbl_3a': (384, 384, 1, 3),
    'branch3x3dbl_3b': (384, 384, 3, 1),
    'branch_pool': (192, c, 1, 1),
  }


BLOCKS = {
  'Mixed_5b': block_a(192, 32),
  'Mixed_5c': block_a(256, 64),
  'Mixed_5d': block_a(288, 64),
  'Mixed_6a': block_b(288),
  'Mixed_6b': block_c(768, 128),
  'Mixed_6c': block_c(768, 160),
  'Mixed_6d': block_c(768, 160),
  'Mixed_6e': block_c(768, 192),
  'Mixed_7a': block_d(768),
  'Mixed_7b': block_e(1280),
  'Mixed_7c': block_e(2048),
}


def random_arrays(seed=0):
  """Makes a state dict whose activations neither vanish nor explode."""
  rng = np.random.default_rng(seed)
  normal = lambda *shape: rng.standard_normal(shape, np.float32)
  layers = dict(STEM)
  for block, inside in BLOCKS.items():
    layers |= {f'{block}.{layer}': shape for layer, shape in inside.items()}
  arrays = {}
  for name, (d, c, h, w) in layers.items():
    kernel = normal(d, c, h, w) * np.float32(np.sqrt(2 / (c * h * w)))
    arrays[f'{name}.conv.weight'] = kernel
    arrays[f'{name}.bn.weight'] = 1 + normal(d) / 10
    arrays[f'{name}.bn.bias'] = normal(d) / 10
    arrays[f'{name}.bn.running_mean'] = normal(d) / 10
    arrays[f'{name}.bn.running_var'] = np.exp(normal(d) / 10)
  arrays['fc.weight'] = normal(1008, 2048) / np.float32(np.sqrt(2048))
  arrays['fc.bias'] = normal(1008)
  return arrays


def pickled(value):
  """Writes the opcodes of protocol 0 for what torch pickles, by hand."""
  if isinstance(value, bytes):  # opcodes already
    return value
  if isinstance(value, str):
    return b'V' + value.encode() + b'\n'
  if isinstance(value, bool):
    return b'I01\n' if value else b'I00\n'
  if isinstance(value, int):
    return b'L' + str(value).encode() + b'L\n'
  if isinstance(value, tuple):
    return b'(' + b''.join(map(pickled, value)) + b't'
  if isinstance(value, list):
    return b'(' + b''.join(map(pickled, value)) + b'l'
  pairs = b''.join(pickled(k) + pickled(v) for k, v in value.items())
  return b'(' + pairs + b'd'


def tensor(kind, key, size, offset, shape, strides):
  """Writes the opcodes of a tensor in the storage `key`."""
  storage = ('storage', b'ctorch\n' + kind + b'\n', key, 'cpu', size)
  arguments = (
    pickled(storage) + b'Q', offset, shape, strides, False,
    b'ccollections\nOrderedDict\n)R',
  )  # fmt: skip
  return b'ctorch._utils\n_rebuild_tensor_v2\n' + pickled(arguments) + b'R'


def write_zip(path, value, storages):
  """Writes the format of torch.save, without torch."""
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('x/version', '3\n')
    archive.writestr('x/data.pkl', pickled(value) + b'.')
    for key, content in storages.items():
      archive.writestr(f'x/data/{key}', content)


def write_stream(path, value, storages, item=4):
  """Writes the format of torch.save before 1.6; `item`: bytes per element."""
  system = {'little_endian': True}
  parts = [0x1950A86A20F9469CFC6C, 1001, system, value, list(storages)]
  content = b''.join(pickled(part) + b'.' for part in parts)
  for storage in storages.values():
    content += (len(storage) // item).to_bytes(8, 'little') + storage
  path.write_bytes(content)


def write_arrays(path, arrays):
  """Writes float32 arrays in the format of torch.save for a state dict."""
  tensors = {}
  for key, (name, array) in enumerate(arrays.items()):
    steps = tuple(step // array.itemsize for step in array.strides)
    tensors[name] = tensor(
      b'FloatStorage', str(key), array.size, 0, array.shape, steps
    )
  storages = {
    str(i): array.tobytes() for i, array in enumerate(arrays.values())
  }
  write_zip(path, tensors, storages)
