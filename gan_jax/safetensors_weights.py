"""Reading of .safetensors weight files, by NumPy alone.

The format: eight bytes with the size of the header, the header as JSON (name of
a tensor -> type, shape and place of its bytes), and the bytes.
"""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from gan_jax.files import reading

# Larger headers are damaged, as in the safetensors package.
MAX_HEADER_BYTES = 100_000_000

# The format's type -> NumPy's.
TYPES = {
  'F64': np.dtype('<f8'),
  'F32': np.dtype('<f4'),
  'F16': np.dtype('<f2'),
  'BF16': np.dtype(jnp.bfloat16),
  'I64': np.dtype('<i8'),
  'I32': np.dtype('<i4'),
  'I16': np.dtype('<i2'),
  'I8': np.dtype('i1'),
  'U8': np.dtype('u1'),
  'BOOL': np.dtype('?'),
}


def is_safetensors(path: str | Path) -> bool:
  """Whether a file begins as a .safetensors file, whatever its name is."""
  with Path(path).open('rb') as file:
    return file.read(9)[8:] == b'{'


def read(path: str | Path) -> dict[str, np.ndarray]:
  """Reads a .safetensors file.

  Returns:
    Name -> the tensor, read-only, with its shape and type. Its bytes are read
    from the file when they are used.

  Raises:
    UserError: The file does not exist or is damaged, or has another format.
  """
  expected = 'weights in a .safetensors file'
  with reading(path, expected, 'is not a .safetensors file'):
    with Path(path).open('rb') as file:
      size = int.from_bytes(file.read(8), 'little')
      if size > MAX_HEADER_BYTES:
        raise ValueError('a header of impossible size')
      header = json.loads(file.read(size))
    content = np.memmap(path, np.uint8, 'r', offset=8 + size)
    header.pop('__metadata__', None)
    return {name: _tensor(content, **row) for name, row in header.items()}


def _tensor(
  content: np.ndarray, dtype: str, shape: list[int], data_offsets: list[int]
) -> np.ndarray:
  """Returns a tensor as a view of the bytes of all tensors.

  Raises:
    KeyError: The type is unknown.
    ValueError: The bytes are another number than the shape needs.
  """
  raw = np.asarray(content[slice(*data_offsets)])
  return raw.view(TYPES[dtype]).reshape(shape)
