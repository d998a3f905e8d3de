"""What images are compared by: a network is a row in FEATURES."""

import hashlib
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree, UInt8

from gan_jax.errors import UserError
from gan_jax.metrics import cifar10, digits, inception
from gan_jax.registry import choose

FeatureDict = dict[str, Float[Array, 'n d']]
# (uint8 images [n, h, w, c]) -> features [n, d]: a user's.
Function = Callable[[Array], Array]


class Features(NamedTuple):
  """A function that looks at images.

  Attributes:
    name: In FEATURES, or MODULE:FUNCTION.
    sha256: Of what it consists of: two scores with other hashes are not of one
      function.
    weights: Its arrays.
    extract: (weights, uint8 images [n, h, w, c]) -> 'features' [n, d], and
      'probabilities' [n, classes] where it is a classifier.
    version: Raised by one whenever `extract` gives other numbers with the same
      weights. Part of every stamp.
  """

  name: str
  sha256: str
  weights: PyTree
  extract: Callable[[PyTree, UInt8[Array, 'n h w c']], FeatureDict]
  version: int = 1

  @property
  def identity(self) -> dict[str, Any]:
    """What a stamp says of the network."""
    return {'name': self.name, 'sha256': self.sha256, 'version': self.version}


def _digits() -> Features:
  weights, sha256 = digits.load()
  return Features('digits', sha256, weights, digits.extract)


def _cifar10() -> Features:
  weights, sha256 = cifar10.load()
  return Features('cifar10', sha256, weights, cifar10.extract)


def _inception() -> Features:
  network = inception.load()

  def extract(weights: PyTree, images: UInt8[Array, 'n h w c']) -> FeatureDict:
    seen = inception.features(weights, images)
    return {
      'features': seen['2048'],
      'probabilities': nn.softmax(seen['logits_unbiased']),
    }

  return Features('inception', network.sha256, network.weights, extract)


def _pixels() -> Features:
  def extract(weights: PyTree, images: UInt8[Array, 'n h w c']) -> FeatureDict:
    del weights
    flat = images.reshape(len(images), -1)
    return {'features': flat.astype(jnp.float32) / 127.5 - 1}

  return Features('pixels', '', (), extract)


FEATURES: dict[str, Callable[[], Features]] = {
  'cifar10': _cifar10,
  'digits': _digits,
  'inception': _inception,
  'pixels': _pixels,
}


def make(given: str | Function) -> Features:
  """Features by name, or those of a function.

  Args:
    given: As `config.evaluation.features`; or (uint8 images [n, h, w, c]) ->
      features [n, d].
  """
  if callable(given):
    if not hasattr(given, '__qualname__'):
      raise UserError(
        f'features={given!r} has no name, and scores say by what they were '
        'measured: define a function, with def'
      )
    return _of_function(f'{given.__module__}:{given.__qualname__}', given)
  if is_of_user(given):
    return _imported(given)
  return choose('config.evaluation.features', given, FEATURES)()


def is_of_user(given: str | Function | None) -> bool:
  """Whether it is not of FEATURES: a function, or MODULE:FUNCTION."""
  return callable(given) or (given is not None and ':' in given)


def _imported(name: str) -> Features:
  """MODULE:FUNCTION: its module is imported, which runs it."""
  module, _, function = name.partition(':')
  try:
    given = getattr(importlib.import_module(module), function)
  except (ImportError, AttributeError) as error:
    raise UserError(
      f'config.evaluation.features={name!r} is to be MODULE:FUNCTION, which '
      f'can be imported from here ({type(error).__name__}: {error})'
    ) from error
  return _of_function(name, given)


def _of_function(name: str, given: Function) -> Features:
  """Its hash is that of its file: of what that reads, nothing is known."""
  try:
    module = inspect.getmodule(given)
    if getattr(module, '__file__', None):
      source = Path(module.__file__).read_bytes()
    else:
      source = inspect.getsource(given).encode()  # of a notebook's cell
  except (TypeError, OSError) as error:
    raise UserError(
      f'the source of features={name} is not found, and scores say by what '
      'they were measured: write the function in a file'
    ) from error
  return Features(
    name,
    hashlib.sha256(source).hexdigest(),
    (),
    lambda weights, images: {'features': given(images)},
  )
