"""Reading of PyTorch weight files, without PyTorch and without running them.

`torch.save` writes a pickle that names storages, and the bytes of the storages:
as members of a zip archive since PyTorch 1.6, before as a stream of pickles
followed by the bytes. A pickle is a program that calls what it names. This
reader accepts only the names that a dict of tensors needs, and maps them to
functions that record their arguments.
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
from gan_jax.files import reading

ZIP_MAGIC = b'PK\x03\x04'
# The first pickle of the format before PyTorch 1.6.
MAGIC_NUMBER = 0x1950A86A20F9469CFC6C

# PyTorch's storage type -> NumPy's type code, without byte order.
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


class Storage(NamedTuple):
  """A storage as the pickle describes it."""

  key: str
  dtype: str
  size: int  # in elements


class Tensor(NamedTuple):
  """A tensor as the pickle describes it; offset and strides in elements."""

  storage: Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


class Unpickler(pickle.Unpickler):
  """Makes dicts, numbers, strings and tensors, and calls nothing else.

  Attributes:
    storages: Key -> the storage, for all storages named so far.
  """

  def __init__(self, file: io.BufferedIOBase | io.BytesIO):
    super().__init__(file)
    self.storages: dict[str, Storage] = {}

  def find_class(self, module: str, name: str) -> Any:
    """Maps an allowed name to its replacement, and refuses all others."""
    full = f'{module}.{name}'
    if full in STORAGES:
      return STORAGES[full]
    if full == 'collections.OrderedDict':
      return OrderedDict
    # A new function each time, because a pickle can set its attributes.
    if full == 'torch._utils._rebuild_tensor_v2':
      return lambda *args: Tensor(*args[:4])
    if full == 'torch._utils._rebuild_parameter':
      return lambda tensor, *_: tensor
    raise UserError(
      f'requests {full!r}, which a dict of tensors does not need: the file was '
      'refused and nothing was run (expected the state_dict() of a network)'
    )

  def persistent_load(self, pid: Any) -> Storage:
    """Records a storage."""
    kind, dtype, key, _, size, *views = pid
    if kind != 'storage' or dtype not in STORAGES.values() or any(views):
      raise ValueError('not a storage')
    return self.storages.setdefault(key, Storage(key, dtype, size))


def read(path: str | Path) -> dict[str, np.ndarray]:
  """Reads a file that `torch.save(network.state_dict(), path)` wrote.

  Returns:
    Name -> a copy of the tensor with its shape and dtype, in C order.

  Raises:
    UserError: The file does not exist, is damaged, is not from PyTorch, holds
      something other than named tensors, or requests any other code.
  """
  expected = 'weights that torch.save wrote'
  with (
    reading(path, expected, 'torch.save did not write it'),
    Path(path).open('rb') as file,
  ):
    is_zip = file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
    file.seek(0)
    return _read_zip(file) if is_zip else _read_stream(file)


def _read_zip(file: io.BufferedIOBase) -> dict[str, np.ndarray]:
  """Reads the format since PyTorch 1.6."""
  with zipfile.ZipFile(file) as archive:
    # All members lie in one folder, whose name varies.
    members = {name.partition('/')[2]: name for name in archive.namelist()}
    member = lambda name: archive.read(members[name])
    unpickler = Unpickler(io.BytesIO(member('data.pkl')))
    tensors = _tensors(unpickler.load())
    big_endian = 'byteorder' in members and member('byteorder') == b'big'
    contents = {
      key: elements_of(storage, member(f'data/{key}'), big_endian)
      for key, storage in unpickler.storages.items()
    }
  return {name: to_array(x, contents) for name, x in tensors.items()}


def _read_stream(file: io.BufferedIOBase) -> dict[str, np.ndarray]:
  """Reads the format before PyTorch 1.6."""
  unpickler, big_endian = _begin_stream(file)
  tensors = _tensors(unpickler.load())
  contents = _read_contents(file, unpickler, big_endian)
  return {name: to_array(x, contents) for name, x in tensors.items()}


def read_storage(content: bytes) -> tuple[Storage, np.ndarray]:
  """Reads one storage in the format before PyTorch 1.6.

  Raises:
    UserError: The content requests any other code.
    ValueError: The content is something else.
  """
  file = io.BytesIO(content)
  unpickler, big_endian = _begin_stream(file)
  storage = unpickler.load()
  if not isinstance(storage, Storage):
    raise ValueError('not a storage')
  contents = _read_contents(file, unpickler, big_endian)
  return storage, contents[storage.key]


def _begin_stream(
  file: io.BufferedIOBase | io.BytesIO,
) -> tuple[Unpickler, bool]:
  """Reads the header; returns the unpickler, and if numbers are big-endian."""
  magic, _, system = (Unpickler(file).load() for _ in range(3))
  if magic != MAGIC_NUMBER:
    raise ValueError('another pickle')
  return Unpickler(file), not system['little_endian']


def _read_contents(
  file: io.BufferedIOBase | io.BytesIO, unpickler: Unpickler, big_endian: bool
) -> dict[str, np.ndarray]:
  """Reads the contents of the storages that were named."""
  contents = {}
  for key in Unpickler(file).load():
    storage = unpickler.storages[key]
    size = int.from_bytes(file.read(8), 'big' if big_endian else 'little')
    if size != storage.size:
      raise ValueError('a storage of another size')
    content = file.read(size * np.dtype(storage.dtype).itemsize)
    contents[key] = elements_of(storage, content, big_endian)
  return contents


def _tensors(loaded: Any) -> Mapping[str, Tensor]:
  """Checks that a loaded value is a dict of tensors."""
  if not isinstance(loaded, dict):
    raise UserError(
      f'holds a {type(loaded).__name__}: expected the dict of tensors that '
      'network.state_dict() returns'
    )
  for name, value in loaded.items():
    if not (isinstance(name, str) and isinstance(value, Tensor)):
      raise UserError(
        f'holds a {type(value).__name__} as {name!r}: expected the dict of '
        'tensors that network.state_dict() returns'
      )
  return loaded


def elements_of(
  storage: Storage, content: bytes, big_endian: bool
) -> np.ndarray:
  """Reads a flat storage.

  Raises:
    ValueError: The content does not have the described size.
  """
  dtype = np.dtype(storage.dtype).newbyteorder('>' if big_endian else '<')
  elements = np.frombuffer(content, dtype)
  if elements.size != storage.size:
    raise ValueError('a storage of another size')
  return elements


def to_array(tensor: Tensor, contents: Mapping[str, np.ndarray]) -> np.ndarray:
  """Copies a tensor from its storage.

  Raises:
    ValueError: The tensor reaches beyond its storage.
  """
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
