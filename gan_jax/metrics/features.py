"""Features by which images are compared: each network has a row in FEATURES."""

import hashlib
import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Num, PyTree

from gan_jax.errors import UserError
from gan_jax.metrics import cifar10, clip, digits, dinov2, inception
from gan_jax.registry import choose, choose_or_import

# uint8, or floats in [0, 255] for path lengths.
Images = Num[Array, 'n h w c']
# Name ('features', 'probabilities') -> array [n, d].
FeatureDict = dict[str, Float[Array, 'n d']]
# A user's function (uint8 images [n, h, w, c]) -> features [n, d].
FeatureFunction = Callable[[Array], Array]


class Features(NamedTuple):
  """A feature extractor.

  Attributes:
    name: Its name in FEATURES, or MODULE:FUNCTION.
    sha256: The hash of its weights or source code: scores with different hashes
      are not comparable.
    weights: Its arrays.
    extract: (weights, images [n, h, w, c]) -> 'features' [n, d], and, for
      a classifier, 'probabilities' [n, classes].
    version: Raise it by one when `extract` gives other numbers with the same
      weights. Part of the protocol of a score.
  """

  name: str
  sha256: str
  weights: PyTree
  extract: Callable[[PyTree, Images], FeatureDict]
  version: int = 1

  @property
  def identity(self) -> dict[str, Any]:
    """The entry of the network in the protocol of a score."""
    return {'name': self.name, 'sha256': self.sha256, 'version': self.version}


def _network(name: str, module: ModuleType) -> Features:
  """Makes the features of a network that has a module of its own."""
  weights, sha256 = module.load()
  return Features(name, sha256, weights, module.extract)


def _inception(name: str, prepare: str) -> Features:
  network = inception.load()

  def extract(weights: PyTree, images: Images) -> FeatureDict:
    outputs = inception.features(weights, images, prepare=prepare)
    return {
      'features': outputs['2048'],
      'probabilities': nn.softmax(outputs['logits_unbiased']),
    }

  return Features(name, network.sha256, network.weights, extract)


def _pixels() -> Features:
  def extract(weights: PyTree, images: Images) -> FeatureDict:
    del weights
    flat = images.reshape(len(images), -1)
    return {'features': flat.astype(jnp.float32) / 127.5 - 1}

  return Features('pixels', '', (), extract)


FEATURES: dict[str, Callable[[], Features]] = {
  'cifar10': partial(_network, 'cifar10', cifar10),
  'clip': partial(_network, 'clip', clip),
  'digits': partial(_network, 'digits', digits),
  'dinov2': partial(_network, 'dinov2', dinov2),
  'inception': partial(_inception, 'inception', 'tensorflow'),
  'inception_clean': partial(_inception, 'inception_clean', 'clean'),
  'inception_torch': partial(_inception, 'inception_torch', 'torch'),
  'pixels': _pixels,
}


def make(function: str | FeatureFunction) -> Features:
  """Makes features by name, or of a function.

  Args:
    function: A value of `config.evaluation.features`; or a function (uint8
      images [n, h, w, c]) -> features [n, d].

  Raises:
    UserError: The name is unknown, or the function has no name or source code.
  """
  if callable(function):
    if not hasattr(function, '__qualname__'):
      raise UserError(
        f'features={function!r} has no name, which scores record: define a '
        'function with def'
      )
    return _from_function(
      f'{function.__module__}:{function.__qualname__}', function
    )
  if is_custom(function):
    imported = choose_or_import(
      'config.evaluation.features', function, FEATURES
    )
    return _from_function(function, imported)
  return choose('config.evaluation.features', function, FEATURES)()


def is_custom(function: str | FeatureFunction | None) -> bool:
  """Whether the features are a function or FILE.py:FUNCTION."""
  return callable(function) or (function is not None and ':' in function)


def _from_function(name: str, function: FeatureFunction) -> Features:
  """Makes features of a function, hashed by the content of its file.

  Other files, which the function may use, are not part of the hash.
  """
  try:
    module = inspect.getmodule(function)
    if getattr(module, '__file__', None):
      source = Path(module.__file__).read_bytes()
    else:
      source = inspect.getsource(function).encode()  # in a notebook
  except (TypeError, OSError) as error:
    raise UserError(
      f'the source code of features={name} is not found, and scores record its '
      'hash: write the function in a file'
    ) from error
  return Features(
    name,
    hashlib.sha256(source).hexdigest(),
    (),
    lambda weights, images: {'features': function(images)},
  )
