"""Data sources: images and points, given by index or drawn on the device.

This folder owns everything between a file and a batch on the device: reading,
decoding, preparing, ordering and loading. It may import the layers below it
(ops, keys, memory, files, registry, errors), and never metrics, training or
runs.

To add a source, write a function (DataSpec) -> Source and add a row to
`SOURCES`, or name it in a config: `config.data.source='mine.py:letters'`.
"""

from collections.abc import Callable, Container
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from gan_jax.data import catalogue, prepared
from gan_jax.data.celeba import CELEBA
from gan_jax.data.cifar10 import CIFAR10
from gan_jax.data.digits import digits
from gan_jax.data.folder import folder
from gan_jax.data.mnist import FASHION_MNIST, MNIST
from gan_jax.data.official import DatasetInfo
from gan_jax.data.pairs import pairs
from gan_jax.data.patches import patches
from gan_jax.data.preprocess import MODES
from gan_jax.data.source import DataSpec, Source
from gan_jax.data.toys import points, slanted_land
from gan_jax.errors import UserError
from gan_jax.registry import choose_or_import


class SourceType(NamedTuple):
  """A type of source: how to open and prepare its sources.

  Attributes:
    open: Opens the source that the spec describes.
    prepare: Downloads and prepares the data; None: no preparation is needed.
    takes_files: Whether the source uses `config.data.files`.
    is_ready: Whether `open` needs no download and no preparation.
    channels: The numbers of channels that its images can have.
  """

  open: Callable[[DataSpec], Source]
  prepare: Callable[[DataSpec], None] | None = None
  takes_files: bool = False
  is_ready: Callable[[DataSpec], bool] = lambda spec: True
  channels: Container[int] = MODES


def _official_source(info: DatasetInfo) -> SourceType:
  """Describes the source type of an official data set."""

  def without_path(
    function: Callable[[DatasetInfo, DataSpec], Any], spec: DataSpec
  ) -> Any:
    if spec.path:
      raise UserError(
        f'{info.name} takes no path: name the folder of its files with '
        f'--config.data.files={spec.path}'
      )
    return function(info, spec)

  return SourceType(
    open=partial(without_path, prepared.open_or_prepare),
    prepare=partial(without_path, prepared.prepare),
    takes_files=True,
    is_ready=partial(prepared.is_prepared, info),
  )


# The values of `config.data.source`: NAME or NAME:PATH.
SOURCES: dict[str, SourceType] = {
  'celeba': _official_source(CELEBA),
  'cifar10': _official_source(CIFAR10),
  'digits': SourceType(digits),
  'drawing': SourceType(partial(points, 'drawing'), channels=(1, 2)),
  'fashion_mnist': _official_source(FASHION_MNIST),
  'folder': SourceType(folder),
  'mnist': _official_source(MNIST),
  'pairs': SourceType(pairs),
  'patches': SourceType(patches),
  'slanted_land': SourceType(slanted_land),
  'tfds': SourceType(
    catalogue.open_set, catalogue.prepare, is_ready=catalogue.is_prepared
  ),
  'toy': SourceType(partial(points, 'toy'), channels=(1, 2)),
}


def make(config: Any) -> Source:
  """Opens the source that `config.data` describes."""
  source_type, spec = _find(config)
  source = source_type.open(spec)
  if not isinstance(source, Source):
    raise UserError(
      f'config.data.source={config.data.source} must be a function of a '
      f'DataSpec that returns a Source, not {type(source).__name__}'
    )
  if source.draw is not None and config.data.flip:
    raise UserError(
      f'{config.data.source} does not support mirroring: set '
      'config.data.flip=False'
    )
  classes, num_labels = config.data.get('classes', 0), len(source.classes)
  if classes not in (0, num_labels):
    raise UserError(
      f'config.data.classes={classes}, but {config.data.source} has '
      f'{num_labels or "no"} labels'
    )
  return source


def is_ready(config: Any) -> bool:
  """Whether `make` needs no download and no preparation."""
  source_type, spec = _find(config)
  return source_type.is_ready(spec)


def prepare(config: Any) -> None:
  """Downloads and prepares the data of `config.data`, if needed."""
  source_type, spec = _find(config)
  if source_type.prepare is None:
    print(f'{config.data.source} needs no preparation')
  else:
    source_type.prepare(spec)


def describe(config: Any, source: Source) -> str:
  """Describes a source in one line."""
  data = config.data
  if source.draw is not None:
    return f'Data:     {data.source}, drawn on the devices'
  return (
    f'Data:     {data.source}, {source.size:,} images of '
    f'{data.resolution}x{data.resolution}, '
    f'{len(source.classes) or "no"} labels'
  )


def _find(config: Any) -> tuple[SourceType, DataSpec]:
  """Finds the source type that `config.data` names, and builds its spec."""
  data = config.data
  name, _, path = data.source.partition(':')
  is_path = data.source.startswith(('/', './', '../', '~'))
  is_path = is_path or Path(data.source).is_dir()
  if name not in SOURCES and is_path:
    raise UserError(
      f'config.data.source={data.source} is a path: for a folder of images, '
      f'set --config.data.source=folder:{data.source}'
    )
  if name.endswith('.py'):
    name, path = data.source, ''
  source_type = choose_or_import('config.data.source', name, SOURCES)
  if not isinstance(source_type, SourceType):
    if not callable(source_type):
      raise UserError(
        f'config.data.source={name} must be a function, not '
        f'{type(source_type).__name__}'
      )
    source_type = SourceType(source_type)  # a function (DataSpec) -> Source
  if data.channels not in source_type.channels:
    raise UserError(
      f'config.data.channels must be 1 (grey) or 3 (RGB), not {data.channels}'
      if source_type.channels is MODES
      else (
        'config.data.channels must be the number of coordinates, 1 or 2, not '
        f'{data.channels}'
      )
    )
  if data.files is not None and not source_type.takes_files:
    raise UserError(
      f'config.data.source={name} does not use config.data.files: remove it'
    )
  spec = DataSpec(
    path=path,
    resolution=data.resolution,
    channels=data.channels,
    crop=data.crop,
    split=data.split,
    dir=data.dir,
    files=data.files,
    max_device_bytes=data.max_device_bytes,
  )
  return source_type, spec
