"""Reading of published `.pkl` generators, without running what they hold.

The `.pkl` files of NVlabs' StyleGAN2-ADA and of R3GAN are pickles of PyTorch
modules, with the Python source of their classes. Opening them as intended runs
that source. This reader accepts only the names that such modules need, and maps
them to functions and classes that record their arguments. The source is
ignored.
"""

import io
import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gan_jax.errors import UserError
from gan_jax.files import reading
from gan_jax.models import r3gan_weights, style_weights
from gan_jax.models.reference_weights import Arrays, ReferenceWeights
from gan_jax.torch_weights import Tensor, read_storage, to_array

# Classes whose objects are only recorded: modules, and what they hold.
RECORDED = re.compile(
  r'(training|R3GAN|BaselineGAN)(\.\w+)+|torch\.nn\.modules(\.\w+)+|'
  r'torch\.(device|Size|(bfloat|float|u?int)\d+|bool)|'
  r'numpy\.(dtype|ndarray)|numpy\._?core\.multiarray\.(_reconstruct|scalar)'
)
# Prefixes of names that identify another network.
OTHERS = {
  'dnnlib.tflib.': 'a TensorFlow StyleGAN: convert it with legacy.py of '
  "NVlabs' stylegan2-ada-pytorch first",
  'pg_modules.': 'a projected GAN such as StyleGAN-XL, which is not supported',
  'feature_networks.': 'a projected GAN such as StyleGAN-XL, which is not '
  'supported',
  'timm.': 'a projected GAN such as StyleGAN-XL, which is not supported',
}


class Networks(NamedTuple):
  """The converted networks of a file: G, D, and the moving average of G."""

  gen: ReferenceWeights
  disc: ReferenceWeights
  ema: ReferenceWeights


class _Recorded:
  """An object of any class: its state, and nothing of its behaviour."""

  def __init__(self, *args: Any):
    self.state: Any = args

  def __setstate__(self, state: Any) -> None:
    self.state = state


class _Unpickler(pickle.Unpickler):
  """Makes dicts, numbers, strings, `Tensor`s and `_Recorded`s.

  All functions and classes that a file can reach are made for this unpickler
  alone, because a pickle can set their attributes.

  Attributes:
    contents: The elements of the storages, by key.
  """

  def __init__(self, file: io.BytesIO):
    super().__init__(file)
    self.contents: dict[str, np.ndarray] = {}

  def find_class(self, module: str, name: str) -> Any:
    """Maps an allowed name to its replacement, and refuses all others."""
    full = f'{module}.{name}'
    if full in ('collections.OrderedDict', 'builtins.set'):
      return OrderedDict if name == 'OrderedDict' else set
    if full == 'dnnlib.util.EasyDict':
      return type('EasyDict', (dict,), {})
    if full == 'torch_utils.persistence._reconstruct_persistent_obj':
      return lambda meta: _persistent(meta)
    if full == 'torch.storage._load_from_bytes':
      return lambda content: self._storage(content)
    if full == 'torch._utils._rebuild_tensor_v2':
      return lambda *args: Tensor(*args[:4])
    if full == 'torch._utils._rebuild_parameter':
      return lambda tensor, *_: tensor
    for beginning, kind in OTHERS.items():
      if full.startswith(beginning):
        raise UserError(f'is {kind}')
    if RECORDED.fullmatch(full):
      return type(name, (_Recorded,), {})
    raise UserError(
      f'requests {full!r}, which a generator does not need: the file was '
      'refused and nothing was run'
    )

  def _storage(self, content: bytes) -> Any:
    """Reads a storage, which is a pickle within the pickle."""
    storage, elements = read_storage(content)
    key = f'{len(self.contents)}'
    self.contents[key] = elements
    return storage._replace(key=key)

  def persistent_load(self, pid: Any) -> Any:
    raise ValueError(f'an external object, {pid!r}')


def _persistent(meta: Any) -> _Recorded:
  """Records an object that was pickled with its source."""
  recorded = _Recorded()
  recorded.state = dict(meta)['state']
  return recorded


def read(path: str | Path) -> Networks:
  """Reads a `.pkl` of StyleGAN2-ADA (PyTorch) or R3GAN.

  Raises:
    UserError: The file does not exist, is damaged, requests code, or holds
      another network.
  """
  try:
    content = io.BytesIO(Path(path).read_bytes())
  except OSError as error:
    raise UserError(f'cannot read {path}: {error.strerror}') from error
  expected = 'a .pkl of StyleGAN2-ADA or R3GAN'
  with reading(path, expected, f'not {expected}'):
    unpickler = _Unpickler(content)
    loaded = unpickler.load()
    named = {
      name: _arrays_of(_part(loaded, name), unpickler.contents)
      for name in ('G', 'D', 'G_ema')
    }
  try:
    return Networks(*(_convert(arrays) for arrays in named.values()))
  except UserError as error:
    raise UserError(f'{path}: {error}') from None
  except (ArithmeticError, LookupError, ValueError) as error:
    raise UserError(
      f'{path} holds another network, or lacks parts of one '
      f'({type(error).__name__}: {error}): only StyleGAN2-ADA and R3GAN can be '
      'read'
    ) from error


def _part(loaded: Any, name: str) -> Any:
  """Returns a network of the loaded dict."""
  if isinstance(loaded, tuple) and len(loaded) == 3:
    raise UserError(f'is {OTHERS["dnnlib.tflib."]}')
  if not isinstance(loaded, dict) or name not in loaded:
    raise UserError(
      f'has no network {name!r}: expected a .pkl of StyleGAN2-ADA or R3GAN, '
      'which holds G, D and G_ema'
    )
  if not isinstance(loaded[name], _Recorded):
    raise UserError(f'holds a {type(loaded[name]).__name__} as {name!r}')
  return loaded[name]


def _arrays_of(module: _Recorded, contents: Arrays, prefix: str = '') -> Arrays:
  """Returns the parameters and buffers of a module, by PyTorch's names."""
  state, arrays = dict(module.state), {}
  for kind in ('_parameters', '_buffers'):
    for name, tensor in dict(state[kind]).items():
      if isinstance(tensor, Tensor):
        arrays[prefix + name] = to_array(tensor, contents)
  for name, child in dict(state['_modules']).items():
    if child is not None:
      arrays |= _arrays_of(child, contents, f'{prefix}{name}.')
  return arrays


def _convert(arrays: Arrays) -> ReferenceWeights:
  """Converts the arrays of a network, by their names.

  Raises:
    UserError: The network is of another kind.
  """
  for kind, pattern in (
    ('StyleGAN-XL', r'feature_network.*|.*\.mapping\.embed_proj.*'),
    ('StyleGAN3', r'synthesis\.(input\..*|L\d+_\d+_\d+\..*)'),
  ):
    if any(re.fullmatch(pattern, name) for name in arrays):
      raise UserError(
        f'this is a {kind}, which is not supported: StyleGAN2-ADA and R3GAN are'
      )
  if r3gan_weights.is_r3gan(arrays):
    return r3gan_weights.from_reference(arrays)
  return style_weights.from_reference(arrays)
