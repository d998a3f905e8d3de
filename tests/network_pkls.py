"""Files in the format of NVlabs' and R3GAN's .pkl, written without PyTorch."""

import struct

import inception_weights as files
from inception_weights import pickled

# The source of a pickled module, which must not run.
SOURCE = 'import pathlib; pathlib.Path({!r}).touch()'


def call(name, *args):
  """Returns the opcodes of a call of module:function."""
  name = name.replace(':', '\n').encode()
  return b'c' + name + b'\n' + encode(args) + b'R'


def encode(value):
  """Returns opcodes as `pickled` does, also of bytes, floats and None."""
  if value is None:
    return b'N'
  if isinstance(value, float):
    return b'G' + struct.pack('>d', value)
  if isinstance(value, tuple):
    return b'(' + b''.join(map(encode, value)) + b't'
  if isinstance(value, dict):
    pairs = b''.join(encode(k) + encode(v) for k, v in value.items())
    return b'(' + pairs + b'd'
  return pickled(value)


def binary(content):
  return b'B' + struct.pack('<I', len(content)) + content


def storage(path, content, size):
  """Returns the bytes of a storage, in the format of torch.save before 1.6."""
  pid = ('storage', b'ctorch\nFloatStorage\n', '0', 'cuda:0', size)
  files.write_stream(path, pickled(pid) + b'Q', {'0': content})
  return path.read_bytes()


def tensor(path, array, content=None):
  """Returns the opcodes of a parameter."""
  array = array.astype('<f4')
  strides = tuple(step // 4 for step in array.strides)
  content = content or storage(path, array.tobytes(), array.size)
  storage_call = call('torch.storage:_load_from_bytes', binary(content))
  hooks = b'ccollections\nOrderedDict\n)R'
  rebuilt = call(
    'torch._utils:_rebuild_tensor_v2', storage_call, 0, array.shape, strides,
    True, hooks,
  )  # fmt: skip
  return call('torch._utils:_rebuild_parameter', rebuilt, True, hooks)


def module(path, arrays, wrap):
  """Returns the opcodes of a module with parameters by their dotted names."""
  direct, children = {}, {}
  for name, array in arrays.items():
    first, _, rest = name.partition('.')
    if rest:
      children.setdefault(first, {})[rest] = array
    else:
      direct[first] = array
  state = {
    'training': False,
    '_parameters': {k: tensor(path, x) for k, x in direct.items()},
    '_buffers': {'nothing': None},
    '_modules': {k: module(path, x, wrap) for k, x in children.items()},
    'gain': 0.5,
  }
  return wrap(state)


def persistent(source):
  """Wraps a state as NVlabs' torch_utils.persistence, with a class's source."""
  hidden = call('dnnlib.util:EasyDict')
  return lambda state: call(
    'torch_utils.persistence:_reconstruct_persistent_obj',
    {
      'type': 'class', 'version': 6, 'module_src': source,
      'class_name': 'Generator', 'state': {**state, '_init_kwargs': hidden},
    },
  )  # fmt: skip


def by_name(state):
  """Wraps a state as R3GAN does: a class by its name, then its state."""
  kind = b'ctorch\nbfloat16\n'
  new = b'ctraining.networks\nGenerator\n)\x81'
  return new + encode({**state, 'DataType': kind}) + b'b'


def write(path, wrap, **networks):
  """Writes a file with these networks, name -> arrays or opcodes."""
  part = path.with_suffix('.part')
  encoded = {
    name: module(part, x, wrap) if wrap and isinstance(x, dict) else x
    for name, x in networks.items()
  }
  path.write_bytes(encode({**encoded, 'cur_nimg': 5}) + b'.')
  part.unlink(missing_ok=True)
  return path
