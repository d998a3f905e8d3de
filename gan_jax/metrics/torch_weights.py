"""PyTorch's files of weights, read without PyTorch and without running them.

`torch.save` writes a pickle, which names storages, and the storages' bytes:
members of a zip archive since PyTorch 1.6, before that a stream of pickles
with the bytes after them. A pickle is a program that calls what it names; here
it can name nothing but what makes a dict of tensors, and those names stand for
functions that only note their arguments.
"""

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gan_jax.errors import UserError

ZIP_BEGINS = b'PK\x03\x04'
# With which the stream of pickles begins.
MAGIC_NUMBER = 0x1950A86A20F9469CFC6C

# The element types of storages, as NumPy writes them, without byte order.
STORAGES = {
  'torch.DoubleStorage': 'f8',
  'torch.FloatStorage': 'f4',
  'torch.HalfStorage': 'f2',
  'torch.LongStorage': 'i8',
  'torch.IntStorage': 'i4',
  'torch.ShortStorage': 'i2',
  'torch.CharStorage': 'i1',
  'torch.ByteStorage': 'u1',
  'torch.BoolStorage': '?',
}


class _Storage(NamedTuple):
  """What the pickle says of a storage."""

  key: str
  dtype: str
  size: int  # in elements


class _Tensor(NamedTuple):
  """What the pickle says of a tensor; all but the storage in elements."""

  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


class _Unpickler(pickle.Unpickler):
  """Makes dicts, numbers, strings and `_Tensor`s, and calls nothing else.

  Attributes:
    storages: Those that were named, by their keys.
  """

  def __init__(self, file: io.BufferedIOBase):
    super().__init__(file)
    self.storages: dict[str, _Storage] = {}

  def find_class(self, module: str, name: str) -> Any:
    full = f'{module}.{name}'
    if full in STORAGES:
      return STORAGES[full]
    if full == 'collections.OrderedDict':
      return OrderedDict
    # A new function each time: a pickle may set attributes of what it has.
    if full == 'torch._utils._rebuild_tensor_v2':
      return lambda *args: _Tensor(*args[:4])
    if full == 'torch._utils._rebuild_parameter':
      return lambda tensor, *_: tensor
    raise UserError(
      f'asks for {full!r}, which a dict of tensors has no need of: refused, '
      'nothing of it was run (expected the state_dict() of a network)'
    )

  def persistent_load(self, pid: Any) -> _Storage:
    what, dtype, key, _, size, *views = pid
    if what != 'storage' or dtype not in STORAGES.values() or any(views):
      raise ValueError('no storage')
    return self.storages.setdefault(key, _Storage(key, dtype, size))


def read(path: str | Path) -> dict[str, np.ndarray]:
  """Reads what `torch.save(network.state_dict(), path)` wrote: name -> array.

  Each array is a copy with the tensor's shape and dtype, in C order.

  Raises:
    UserError: The file is missing, damaged, not of PyTorch, holds something
      else than tensors under names, or asks for any other code.
  """
  try:
    with Path(path).open('rb') as file:
      is_zip = file.read(len(ZIP_BEGINS)) == ZIP_BEGINS
      file.seek(0)
      return _read_zip(file) if is_zip else _read_stream(file)
  except UserError as error:
    raise UserError(f'{path} {error}') from None
  except FileNotFoundError as error:
    raise UserError(
      f'there is no {path}: expected a file of weights, as torch.save writes it'
    ) from error
  except Exception as error:  # broken bytes break pickle and zip in many ways
    raise UserError(
      f'{path} is damaged, or no file of weights as torch.save writes it '
      f'({type(error).__name__}): get it again'
    ) from error


def _read_zip(file: io.BufferedIOBase) -> dict[str, np.ndarray]:
  with zipfile.ZipFile(file) as archive:
    # All members lie in one folder, whatever its name.
    members = {name.partition('/')[2]: name for name in archive.namelist()}
    member = lambda name: archive.read(members[name])
    unpickler = _Unpickler(io.BytesIO(member('data.pkl')))
    tensors = _tensors(unpickler.load())
    big = 'byteorder' in members and member('byteorder') == b'big'
    contents = {
      key: _elements(storage, member(f'data/{key}'), big)
      for key, storage in unpickler.storages.items()
    }
  return {name: _array(x, contents) for name, x in tensors.items()}


def _read_stream(file: io.BufferedIOBase) -> dict[str, np.ndarray]:
  magic, _, system = (_Unpickler(file).load() for _ in range(3))
  if magic != MAGIC_NUMBER:
    raise ValueError('another pickle')
  big = not system['little_endian']
  unpickler = _Unpickler(file)
  tensors = _tensors(unpickler.load())
  contents = {}
  for key in _Unpickler(file).load():
    storage = unpickler.storages[key]
    size = int.from_bytes(file.read(8), 'big' if big else 'little')
    if size != storage.size:
      raise ValueError('a storage of another size')
    content = file.read(size * np.dtype(storage.dtype).itemsize)
    contents[key] = _elements(storage, content, big)
  return {name: _array(x, contents) for name, x in tensors.items()}


def _tensors(loaded: Any) -> Mapping[str, _Tensor]:
  if not isinstance(loaded, dict):
    raise UserError(
      f'holds a {type(loaded).__name__}: expected the dict of tensors that '
      'network.state_dict() returns'
    )
  for name, value in loaded.items():
    if not (isinstance(name, str) and isinstance(value, _Tensor)):
      raise UserError(
        f'holds a {type(value).__name__} as {name!r}: expected the dict of '
        'tensors that network.state_dict() returns'
      )
  return loaded


def _elements(storage: _Storage, content: bytes, big: bool) -> np.ndarray:
  """The flat storage; ValueError if the file has less of it than it says."""
  dtype = np.dtype(storage.dtype).newbyteorder('>' if big else '<')
  elements = np.frombuffer(content, dtype)
  if elements.size != storage.size:
    raise ValueError('a storage of another size')
  return elements


def _array(tensor: _Tensor, contents: Mapping[str, np.ndarray]) -> np.ndarray:
  """The tensor out of its storage; ValueError if it reaches beyond."""
  elements = contents[tensor.storage.key]
  native = elements.dtype.newbyteorder('=')
  offset, shape, strides = tensor[1:]
  steps = list(zip(shape, strides, strict=True))
  if min((offset, *shape, *strides)) < 0:
    raise ValueError('a tensor of negative size')
  if 0 in shape:
    return np.zeros(shape, native)
  if offset + sum((n - 1) * step for n, step in steps) >= elements.size:
    raise ValueError('a tensor that reaches beyond its storage')
  return np.lib.stride_tricks.as_strided(
    elements[offset:], shape, [step * native.itemsize for step in strides]
  ).astype(native, order='C')
