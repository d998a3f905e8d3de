"""The binary messages of the lab: named arrays with a header."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

# The types of arrays, with their names in the header.
TYPES = {'float32': 'f4', 'uint8': 'u1'}


def pack(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
  """Packs arrays into one message.

  The message is the length of the header (uint32, little-endian), the header
  as JSON, padded with spaces to a multiple of 4 bytes, and the arrays. The
  header lists the arrays in `arrays`: name, type (f4 or u1) and shape. Each
  array begins at a multiple of 4 bytes.
  """
  listed, parts = [], []
  for name, array in arrays.items():
    array = np.ascontiguousarray(array)
    listed.append([name, TYPES[array.dtype.name], list(array.shape)])
    raw = array.astype(array.dtype.newbyteorder('<'), copy=False).tobytes()
    parts.append(raw + b'\0' * (-len(raw) % 4))
  text = json.dumps({**header, 'arrays': listed}, allow_nan=False).encode()
  text += b' ' * (-len(text) % 4)
  return b''.join([len(text).to_bytes(4, 'little'), text, *parts])


def unpack(message: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Returns the header and the arrays of a message; the inverse of `pack`."""
  end = 4 + int.from_bytes(message[:4], 'little')
  header = json.loads(message[4:end])
  arrays = {}
  for name, kind, shape in header.pop('arrays'):
    count = int(np.prod(shape))
    array = np.frombuffer(message, f'<{kind}', count, end)
    arrays[name] = array.reshape(shape)
    end += array.nbytes + -array.nbytes % 4
  return header, arrays
