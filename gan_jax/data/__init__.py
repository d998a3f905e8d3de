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
from gan_jax.data.digits import digit_pairs, digits
from gan_jax.data.folder import folder
from gan_jax.data.mnist import FASHION_MNIST, MNIST
from gan_jax.data.official import DatasetInfo
from gan_jax.data.pairs import pairs
from gan_jax.data.patches import patches
from gan_jax.data.preprocess import MODES
from gan_jax.data.source import DataSpec, Source, joined
from gan_jax.data.toys import Toy, named_toy, points, slanted_land
from gan_jax.errors import UserError
from gan_jax.registry import choose_or_import, is_code


class SourceType(NamedTuple):
  """A type of source: how to open and prepare its sources.

  Attributes:
    open: Opens the source that the spec describes.
    prepare: Downloads and prepares the data; None: no preparation is needed.
    takes_files: Whether the source uses `config.data.files`.
    is_ready: Whether `open` needs no download, no preparation and no path that
      is not named yet.
    channels: The numbers of channels that its images can have.
    toy: Returns the toy whose points the sources have; None: they have images.
    entries: The entries of images of an example.
    is_own: Whether it is a function of the user's own.
    has_shards: Whether its images are stored in shards, which can be fetched as
      they are needed.
  """

  open: Callable[[DataSpec], Source]
  prepare: Callable[[DataSpec], None] | None = None
  takes_files: bool = False
  is_ready: Callable[[DataSpec], bool] = lambda spec: True
  channels: Container[int] = MODES
  toy: Callable[[DataSpec], Toy] | None = None
  entries: tuple[str, ...] = ('images',)
  is_own: bool = False
  has_shards: bool = False


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
    has_shards=True,
    is_ready=partial(prepared.is_prepared, info),
  )


def _toy_source(kind: str) -> SourceType:
  """Describes a source type of the points of toys."""
  return SourceType(
    open=partial(points, kind),
    channels=(1, 2),
    toy=lambda spec: named_toy(f'{kind}:{spec.path}'),
  )


def _has_path(spec: DataSpec) -> bool:
  return bool(spec.path)


# The values of `config.data.source`: NAME or NAME:PATH.
SOURCES: dict[str, SourceType] = {
  'celeba': _official_source(CELEBA),
  'cifar10': _official_source(CIFAR10),
  'digit_pairs': SourceType(digit_pairs, entries=('a', 'b')),
  'digits': SourceType(digits),
  'drawing': _toy_source('drawing'),
  'fashion_mnist': _official_source(FASHION_MNIST),
  'folder': SourceType(folder, is_ready=_has_path),
  'mnist': _official_source(MNIST),
  'pairs': SourceType(pairs, is_ready=_has_path, entries=('a', 'b')),
  'patches': SourceType(patches, is_ready=_has_path),
  'slanted_land': SourceType(slanted_land),
  'tfds': SourceType(
    catalogue.open_set,
    catalogue.prepare,
    is_ready=catalogue.is_prepared,
    has_shards=True,
  ),
  'toy': _toy_source('toy'),
}


# The keys of `config.data` that name sources: one source, or two.
ONE, TWO = ('source',), ('a', 'b')


def source_names(config: Any) -> tuple[str, ...]:
  """Returns the keys of `config.data` that name its sources.

  Raises:
    UserError: Neither `source` alone nor both `a` and `b` are set.
  """
  given = [name for name in ONE + TWO if config.data.get(name) is not None]
  if tuple(given) not in (ONE, TWO):
    listed = ', '.join(f'config.data.{name}' for name in given)
    raise UserError(
      f'{listed or "no source"} is set, but the data needs config.data.source, '
      'or both config.data.a and config.data.b: set '
      '--config.data.source=folder:/path/to/images'
    )
  return tuple(given)


def make(config: Any, training: bool = False) -> Source:
  """Opens the source that `config.data` describes.

  Args:
    config: The config of the run.
    training: Whether to load images of `data.load_resolution`, from which
      training crops squares of `data.resolution`.
  """
  names = source_names(config)
  parts = {name: _open(config, name, training) for name in names}
  source = parts['source'] if names == ONE else joined(parts)
  drawn = config.data[names[0]]
  if source.draw is not None and config.data.flip:
    raise UserError(
      f'{drawn} does not support mirroring: set config.data.flip=False'
    )
  if source.draw is not None and config.data.get('rotate'):
    raise UserError(
      f'{drawn} does not support rotations: set config.data.rotate=False'
    )
  return source


def _open(config: Any, name: str, training: bool) -> Source:
  """Opens the source that `config.data.NAME` names."""
  source_type, spec = _find(config, name)
  value = config.data[name]
  load = config.data.get('load_resolution')
  if load is not None and load < spec.resolution:
    raise UserError(
      f'config.data.load_resolution={load} is below config.data.resolution='
      f'{spec.resolution}: set it to {spec.resolution} or more, or to None'
    )
  if training and load is not None:
    spec = spec._replace(resolution=load)
  source = source_type.open(spec)
  if not isinstance(source, Source):
    raise UserError(
      f'config.data.{name}={value} must be a function of a DataSpec that '
      f'returns a Source, not {type(source).__name__}'
    )
  if load is not None and source.draw is not None:
    raise UserError(
      f'{value} has no larger images to crop from: set '
      'config.data.load_resolution=None'
    )
  classes, num_labels = config.data.get('classes', 0), len(source.classes)
  if classes not in (0, num_labels):
    raise UserError(
      f'config.data.classes={classes}, but {value} has '
      f'{num_labels or "no"} labels'
    )
  return source


def toy_of(config: Any) -> Toy | None:
  """Returns the toy of the data, without opening images; None: no toy."""
  if source_names(config) != ONE:
    return None
  source_type, spec = _find(config, 'source')
  if source_type.is_own:
    return source_type.open(spec).toy
  return source_type.toy and source_type.toy(spec)


def image_entries(config: Any, name: str) -> tuple[str, ...]:
  """Returns the entries of images of the source `config.data.NAME`."""
  return _find(config, name)[0].entries


def is_ready(config: Any) -> bool:
  """Whether `make` needs no download, no preparation and no further path."""
  found = [_find(config, name) for name in source_names(config)]
  return all(source_type.is_ready(spec) for source_type, spec in found)


def prepare(config: Any) -> None:
  """Downloads and prepares the data of `config.data`, if needed."""
  for name in source_names(config):
    source_type, spec = _find(config, name)
    if source_type.prepare is None:
      print(f'{config.data[name]} needs no preparation')
    else:
      source_type.prepare(spec)


def describe(config: Any, source: Source) -> str:
  """Describes a source in one line."""
  parts = source.parts or {'source': source}
  described = (
    _describe_part(config.data[name], part, config.data.resolution)
    for name, part in parts.items()
  )
  return f'Data:     {"; ".join(described)}'


def _describe_part(name: str, source: Source, resolution: int) -> str:
  if source.draw is not None:
    return f'{name}, drawn on the devices'
  return (
    f'{name}, {source.size:,} images of {resolution}x{resolution}, '
    f'{len(source.classes) or "no"} labels'
  )


def _find(config: Any, key: str) -> tuple[SourceType, DataSpec]:
  """Finds the source type that `config.data.KEY` names, and builds its spec."""
  data, value, where = config.data, config.data[key], f'config.data.{key}'
  name, _, path = value.partition(':')
  is_path = value.startswith(('/', './', '../', '~')) or Path(value).is_dir()
  if name not in SOURCES and is_path and not is_code(value):
    raise UserError(
      f'{where}={value} is a path: for a folder of images, set '
      f'--{where}=folder:{value}'
    )
  if name.endswith('.py'):
    name, path = value, ''
  source_type = choose_or_import(where, name, SOURCES)
  if not isinstance(source_type, SourceType):
    if not callable(source_type):
      raise UserError(
        f'{where}={name} must be a function, not {type(source_type).__name__}'
      )
    # A function (DataSpec) -> Source.
    source_type = SourceType(source_type, is_own=True)
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
    raise UserError(f'{where}={name} does not use config.data.files: remove it')
  _check_storage(config, where, name, source_type)
  cache_gb = data.get('cache_gb')
  if cache_gb is not None:  # two sources share it
    cache_gb /= len(source_names(config))
  spec = DataSpec(
    path=path,
    resolution=data.resolution,
    channels=data.channels,
    crop=data.crop,
    split=data.split,
    dir=data.dir,
    files=data.files,
    max_device_bytes=data.max_device_bytes,
    shuffle_window=data.get('shuffle_window'),
    pyramid=data.get('pyramid', False),
    cache_bytes=None if cache_gb is None else int(cache_gb * 1e9),
  )
  return source_type, spec


def _check_storage(
  config: Any, where: str, name: str, source_type: SourceType
) -> None:
  """Raises UserError for keys of storage that a source does not have."""
  for key in ('shuffle_window', 'cache_gb'):
    if config.data.get(key) is not None and not source_type.has_shards:
      raise UserError(
        f'{where}={name} is not stored in shards: remove config.data.{key}'
      )
  if config.data.get('pyramid') and not source_type.takes_files:
    raise UserError(
      f'{where}={name} has no pyramid: set config.data.pyramid=False'
    )
