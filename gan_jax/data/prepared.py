"""Official data sets, prepared once: decoded, cropped, resized, kept as uint8.

TFDS writes and reads them as array_record, without TensorFlow.
"""

import contextlib
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rich.console
from etils import epath, epy
from rich.progress import track

from gan_jax.data import pyramid, store
from gan_jax.data.cache import Cache
from gan_jax.data.official import DatasetInfo, Split, download, locate
from gan_jax.data.records import Records, open_records
from gan_jax.data.source import DataSpec, Examples, Source, Upcoming
from gan_jax.errors import UserError, warn
from gan_jax.files import held, is_remote, local

with epy.lazy_imports():  # TFDS takes a quarter of a second
  import tensorflow_datasets as tfds


def open_or_prepare(info: DatasetInfo, spec: DataSpec) -> Source:
  """Opens the prepared data set, and prepares it first if necessary."""
  folder = _folder(info, spec)
  local_folder, cached = local(folder), None
  if spec.cache_bytes is not None:
    if not store.is_prepared(folder):
      _ensure_prepared(info, spec, replace_incomplete=False)
    if spec.pyramid and not pyramid.is_written(folder):
      raise UserError(
        f'{folder} has no pyramid: run the same command with --mode=prepare, '
        'or set config.data.pyramid=False'
      )
    cached, builder = store.stream(folder, spec.cache_bytes)
  else:
    # No lock is taken for a prepared set, which may be on a read-only disk.
    if is_remote(folder) or not _is_ready(local_folder, spec):
      _ensure_prepared(info, spec, replace_incomplete=False)
    builder = tfds.builder_from_directory(local_folder)
  total = _count(builder)
  if total < info.size:
    warn(
      f'only {total:,} of the {info.size:,} images of {info.name} are '
      'prepared; to prepare all of them, run --mode=prepare with '
      '--config.data.files=PATH of the full set'
    )
  return _open(builder, spec, info.classes, cached)


def is_prepared(info: DatasetInfo, spec: DataSpec) -> bool:
  """Whether the data set is prepared."""
  return _is_ready(_folder(info, spec), spec)


def prepare(info: DatasetInfo, spec: DataSpec) -> None:
  """Prepares the data set if necessary.

  With `data.files`, an incomplete prepared set is replaced.
  """
  _ensure_prepared(info, spec, replace_incomplete=spec.files is not None)


def _ensure_prepared(
  info: DatasetInfo, spec: DataSpec, replace_incomplete: bool
) -> None:
  """Prepares the data set, and copies it to and from its bucket, if necessary.

  Args:
    replace_incomplete: Whether to prepare the set again if the prepared one
      lacks images or labels.
  """
  folder = _folder(info, spec)
  local_folder = local(folder)
  with _lock_folder(local_folder.parent):
    if store.pull(folder) and not (
      replace_incomplete and _is_incomplete(info, local_folder)
    ):
      unused = '' if spec.files is None else '; data.files was not read'
      print(f'Already prepared: {folder}{unused}')
      if _is_ready(local_folder, spec):
        return
    else:
      _prepare(info, spec)
    if spec.pyramid:
      pyramid.write(local_folder, tfds.builder_from_directory(local_folder))
    store.push(folder)
  print(f'Prepared: {folder}')


def _is_ready(folder: epath.Path, spec: DataSpec) -> bool:
  """Whether a set is prepared, with all that the spec asks for."""
  return store.is_prepared(folder) and (
    not spec.pyramid or pyramid.is_written(folder)
  )


def _is_incomplete(info: DatasetInfo, folder: epath.Path) -> bool:
  """Whether images or labels are missing from a prepared set."""
  builder = tfds.builder_from_directory(folder)
  has_all = _count(builder) >= info.size
  return not has_all or 'label' not in builder.info.features


def _open(
  builder: Any, spec: DataSpec, classes: tuple[str, ...], cached: Cache | None
) -> Source:
  """Opens a split of a prepared set."""
  records = open_records(builder, spec.split, cached=cached)
  features = records.features
  labelled = 'label' in features
  image_bytes = int(np.prod(features['image'].shape))
  label_bytes = 4 * int(np.prod(features['label'].shape)) if labelled else 0
  return Source(
    size=len(records),
    fetch=partial(_fetch, records),
    example_bytes=image_bytes + label_bytes,
    classes=classes if labelled else (),
    labels=partial(records.labels, 'label') if labelled else None,
    fingerprint=records.fingerprint,
    blocks=records.blocks(spec),
    ahead=partial(_ahead, records) if cached else None,
    fetch_sums=partial(pyramid.fetch, records) if spec.pyramid else None,
  )


def _fetch(records: Records, indices: np.ndarray) -> Examples:
  """Reads the examples at `indices`."""
  read = records.read(indices)
  examples = {'images': np.stack([example['image'] for example in read])}
  if 'label' in read[0]:
    labels = [example['label'] for example in read]
    examples['labels'] = np.asarray(labels, np.int32)
  return examples


def _ahead(records: Records, upcoming: Upcoming, factor: int) -> None:
  """Announces shards, or the files of a level of the pyramid."""
  records.ahead(upcoming, partial(pyramid.file_name, factor=factor))


def _folder(info: DatasetInfo, spec: DataSpec) -> epath.Path:
  """Returns the folder of the prepared set."""
  dataset, variant = _dataset(info), _variant(spec)
  return store.data_dir(spec) / dataset / variant / store.VERSION


def _dataset(info: DatasetInfo) -> str:
  """Returns the name of the data set in TFDS."""
  return f'gan_jax_{info.name}'


def _variant(spec: DataSpec) -> str:
  """Names the preprocessing of the images, as in 64x64_rgb_crop178."""
  colours = {1: 'grey', 3: 'rgb'}[spec.channels]
  crop = '' if spec.crop is None else f'_crop{spec.crop}'
  return f'{spec.resolution}x{spec.resolution}_{colours}{crop}'


def _count(builder: Any) -> int:
  """Counts the images of a prepared set, in all splits."""
  splits = builder.info.splits.values()
  return sum(split.num_examples for split in splits)


def _prepare(info: DatasetInfo, spec: DataSpec) -> None:
  """Finds or downloads the files, and writes the data set atomically."""
  local_folder = local(_folder(info, spec))
  if spec.files is None:
    downloads = local(store.data_dir(spec)) / 'downloads'
    found = download(info, downloads)
  else:
    found = locate(info, Path(spec.files).expanduser())
  splits, labelled = info.read(found, spec)
  splits = {name: split for name, split in splits.items() if split.size}
  total = sum(split.size for split in splits.values())
  if not splits:
    raise UserError(
      f'{spec.files} has no images: name the folder of the official files'
    )
  if total < info.size:
    warn(
      f'found only {total:,} of the {info.size:,} images of {info.name}; '
      'continuing with them'
    )
  num_existing = 0
  if store.is_prepared(local_folder):
    num_existing = _count(tfds.builder_from_directory(local_folder))
  if total < num_existing:
    raise UserError(
      f'the {total:,} images found would replace the {num_existing:,} in '
      f'{local_folder}: to replace them, remove that folder first'
    )
  _check_space(local_folder.parent, total * spec.image_bytes)
  # An existing set is removed only when the new one is complete.
  new, old = local_folder.parent / '.new', local_folder.parent / '.old'
  for stale in (new, old):  # left by a preparation that was killed
    stale.rmtree(missing_ok=True)
  _write(info, spec, splits, labelled, new)
  if local_folder.exists():
    local_folder.rename(old)
  (new / _dataset(info) / _variant(spec) / store.VERSION).rename(local_folder)
  for stale in (new, old):
    stale.rmtree(missing_ok=True)


@contextlib.contextmanager
def _lock_folder(folder: epath.Path) -> Iterator[None]:
  """Locks a folder, so that one process of this machine prepares at a time."""
  print_waiting = lambda: print(
    'Waiting for another process that prepares the same data set'
  )
  with contextlib.ExitStack() as stack:
    try:
      stack.enter_context(held(folder, print_waiting))
    except OSError as error:
      raise UserError(
        f'cannot write to {folder}: {error.strerror}; set --config.data.dir to '
        'another folder for prepared sets'
      ) from error
    yield


def _check_space(folder: epath.Path, needed: int) -> None:
  """Raises a UserError if the disk has too little free space."""
  free = shutil.disk_usage(folder).free
  if needed > free:
    raise UserError(
      f'{folder} has {free / 1e9:,.3f} GB free, but {needed / 1e9:,.3f} GB '
      'are needed: set --config.data.dir to another folder'
    )


def _write(
  info: DatasetInfo,
  spec: DataSpec,
  splits: dict[str, Split],
  labelled: bool,
  folder: epath.Path,
) -> None:
  """Writes the data set below `folder` with TFDS."""
  from gan_jax.data.builder import Builder  # imports TFDS

  shape = (spec.resolution, spec.resolution, spec.channels)
  tensor = partial(tfds.features.Tensor, encoding='bytes')  # reads 3x faster
  features = {'image': tensor(shape=shape, dtype=np.uint8)}
  if labelled:
    class_label = tfds.features.ClassLabel(names=info.classes)
    attributes = tensor(shape=(len(info.classes),), dtype=np.int32)
    features['label'] = attributes if info.attributes else class_label
  # The progress bar keeps the real stdout, which the builder replaces.
  console = rich.console.Console(file=sys.stdout)

  def keyed(name: str, split: Split) -> Iterator[tuple[int, Any]]:
    title = f'Preparing {info.name}, {name}'
    tracked = track(split.examples, title, total=split.size, console=console)
    for number, (image, label) in enumerate(tracked):
      yield number, {'image': image} | ({'label': label} if labelled else {})

  builder = Builder(
    _dataset(info),
    tfds.features.FeaturesDict(features),
    {name: keyed(name, split) for name, split in splits.items()},
    info.homepage,
    config=tfds.core.BuilderConfig(name=_variant(spec)),
    data_dir=folder,
  )
  builder.write()
