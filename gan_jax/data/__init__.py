"""Where images come from: a new source is a function here, and a row."""

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
from gan_jax.data.preprocess import MODES
from gan_jax.data.source import DataSpec, Source
from gan_jax.data.toys import points, slanted_land
from gan_jax.errors import UserError
from gan_jax.registry import choose


class SourceType(NamedTuple):
  """A kind of source: how it is opened, and how it is prepared, if it is.

  `takes_files`: whether `data.files` says something to it; `is_ready`: whether
  to open it is to read what is there, and not to download; `channels`: what
  its images may have.
  """

  open: Callable[[DataSpec], Source]
  prepare: Callable[[DataSpec], None] | None = None
  takes_files: bool = False
  is_ready: Callable[[DataSpec], bool] = lambda wanted: True
  channels: Container[int] = MODES


def _official(original: DatasetInfo) -> SourceType:
  def checked(
    act: Callable[[DatasetInfo, DataSpec], Any], wanted: DataSpec
  ) -> Any:
    if wanted.path:
      raise UserError(
        f'{original.name} takes no path: --config.data.files={wanted.path} '
        'says where its files are'
      )
    return act(original, wanted)

  return SourceType(
    open=partial(checked, prepared.open_or_prepare),
    prepare=partial(checked, prepared.prepare),
    takes_files=True,
    is_ready=partial(prepared.is_prepared, original),
  )


# `config.data.source` is NAME or NAME:PATH.
SOURCES: dict[str, SourceType] = {
  'celeba': _official(CELEBA),
  'cifar10': _official(CIFAR10),
  'digits': SourceType(digits),
  'drawing': SourceType(partial(points, 'drawing'), channels=(1, 2)),
  'fashion_mnist': _official(FASHION_MNIST),
  'folder': SourceType(folder),
  'mnist': _official(MNIST),
  'slanted_land': SourceType(slanted_land),
  'tfds': SourceType(
    catalogue.open_set, catalogue.prepare, is_ready=catalogue.is_prepared
  ),
  'toy': SourceType(partial(points, 'toy'), channels=(1, 2)),
}


def make(config: Any) -> Source:
  """The source that `config.data` describes."""
  row, wanted = _find(config)
  source = row.open(wanted)
  if source.draw is not None and config.data.flip:
    raise UserError(f'{config.data.source} is not mirrored: data.flip=False')
  classes, there = config.data.get('classes', 0), len(source.classes)
  if classes not in (0, there):
    raise UserError(
      f'config.data.classes={classes}, and {config.data.source} has '
      f'{there or "no"} labels'
    )
  return source


def is_ready(config: Any) -> bool:
  """Whether `make` would find it ready: nothing to download or prepare."""
  row, wanted = _find(config)
  return row.is_ready(wanted)


def prepare(config: Any) -> None:
  """Downloads and prepares what `config.data` describes, if that is needed."""
  row, wanted = _find(config)
  if row.prepare is None:
    print(f'{config.data.source} needs no preparation')
  else:
    row.prepare(wanted)


def describe(config: Any, source: Source) -> str:
  """What a source has, in a line."""
  data = config.data
  if source.draw is not None:
    return f'Data:     {data.source}, drawn on the devices'
  return (
    f'Data:     {data.source}, {source.size:,} images of '
    f'{data.resolution}x{data.resolution}, '
    f'{len(source.classes) or "no"} labels'
  )


def _find(config: Any) -> tuple[SourceType, DataSpec]:
  data = config.data
  name, _, path = data.source.partition(':')
  is_path = data.source.startswith(('/', './', '../', '~'))
  is_path = is_path or Path(data.source).is_dir()
  if name not in SOURCES and is_path:
    raise UserError(
      f'config.data.source={data.source} is a path: a folder of images is '
      f'--config.data.source=folder:{data.source}'
    )
  row = choose('config.data.source', name, SOURCES)
  if data.channels not in row.channels:
    raise UserError(
      f'config.data.channels is 1 (grey) or 3 (RGB), not {data.channels}'
      if row.channels is MODES
      else f'config.data.channels is 1 or 2 coordinates, not {data.channels}'
    )
  if data.files is not None and not row.takes_files:
    raise UserError(f'config.data.files says nothing to {name}: leave it out')
  wanted = DataSpec(
    path=path,
    resolution=data.resolution,
    channels=data.channels,
    crop=data.crop,
    split=data.split,
    dir=data.dir,
    files=data.files,
    max_device_bytes=data.max_device_bytes,
  )
  return row, wanted
